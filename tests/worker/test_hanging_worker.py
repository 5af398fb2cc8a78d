"""A worker one of whose threads holds the GIL for ever ends, and another continues its jobs."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from simulated_workers import check_texts, send, worker_arguments, worker_process
from worker_support import Client, has_workers, until

from shared.protocol.jobs import JobState
from shared.store.adapters.registry import Registry
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from worker.engine_simulated.adapters import SimulatedSource

LEASE_MS = 1500
STALL_S = 2.0
STEP_MS = 10
PROCESS_DEADLINE_S = 60.0
PROGRAM = Path(__file__).parents[1] / "support" / "hanging_worker.py"
ADAPTER = SimulatedSource(load_s=0).read("frozen", "frozen").weights


@contextmanager
def hanging_worker(kind: str, redis_url: str, pool: str) -> Iterator["subprocess.Popen[bytes]"]:
    settings = {"lease_ms": LEASE_MS, "stall_s": STALL_S, "simulated_step_ms": STEP_MS}
    words = worker_arguments(redis_url, pool, **settings)
    with subprocess.Popen([sys.executable, str(PROGRAM), kind, *words]) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["engine", "loop", "loader", "loop without GIL"])
async def test_a_worker_that_hangs_ends_in_time_and_another_finishes_its_jobs(
    kind: str, client: Client, redis: Redis, keys: Keys, redis_url: str, pool: str
) -> None:
    with hanging_worker(kind, redis_url, pool) as hanging:
        await until(lambda: has_workers(client.views, 1), PROCESS_DEADLINE_S)
        await Registry(redis, keys).add_adapter(ADAPTER.registry_entry(ADAPTER.source))
        jobs = [await send(client, max_tokens=400, seed=seed) for seed in range(3)]
        for job in jobs:
            await client.until_published(job, 5)
        hung_s = time.monotonic()
        hanging.send_signal(signal.SIGUSR1)
        jobs.append(await send(client, version=ADAPTER.version, max_tokens=20, seed=9))
        await until(lambda: hanging.poll() is not None, PROCESS_DEADLINE_S)
        assert time.monotonic() - hung_s < STALL_S + 2 * LEASE_MS / 1000
        assert hanging.returncode == signal.SIGUSR2
    with worker_process(redis_url, pool, lease_ms=LEASE_MS):
        ends = [await client.end_of(job, PROCESS_DEADLINE_S) for job in jobs]
    assert [end.state for end in ends] == [JobState.DONE] * len(jobs)
    assert all(end.try_ > 1 for end in ends[:3])
    assert check_texts(client, jobs) >= 3
