"""Jobs that the monitor of a chaos run counts."""

from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from queue_support import LIMITS, make_job

from ops.lab.chaos.checks import monitor as monitor_module
from ops.lab.chaos.checks.monitor import Monitor
from ops.lab.chaos.cluster.pool import Pool
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys


@dataclass
class PoolOfJobs:
    """A pool without processes."""

    redis: Redis
    keys: Keys
    apis: list[Any] = field(default_factory=list)


@pytest.fixture
def monitor(redis: Redis, keys: Keys) -> Monitor:
    return Monitor(cast(Pool, PoolOfJobs(redis, keys)))


async def test_a_job_counts_once_the_pool_has_kept_it_for_a_while(
    monitor: Monitor, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job()
    await queue.enqueue(job, LIMITS)
    await monitor.sample()
    assert monitor.jobs == set()
    monkeypatch.setattr(monitor_module, "SETTLED_S", 0.0)
    await monitor.sample()
    assert monitor.jobs == {job.id}


async def test_all_jobs_of_the_last_sample_count(monitor: Monitor, queue: Queue) -> None:
    job = make_job()
    await queue.enqueue(job, LIMITS)
    await monitor.finish()
    assert monitor.jobs == {job.id}


async def test_a_cancelled_job_does_not_count(monitor: Monitor, queue: Queue) -> None:
    kept, given_up = make_job(), make_job()
    for job in (kept, given_up):
        await queue.enqueue(job, LIMITS)
    await monitor.sample()
    await queue.cancel(given_up.id)
    await monitor.finish()
    assert monitor.jobs == {kept.id}
