"""Quarantined versions are released after a time, or by hand."""

import pytest
from queue_support import LIMITS, Actor, make_adapter, make_job

from shared.errors import JobFailed
from shared.protocol.adapters import AdapterState
from shared.protocol.ids import AdapterVersion
from shared.store.adapters.registry import Registry
from shared.store.audit.auditor import Auditor
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

A = AdapterVersion("a@1")
DEATHS = 3
DEAD_JOBS_UNTIL_QUARANTINE = 3
HOUR_MS = 3_600_000


@pytest.fixture
async def registry(redis: Redis, keys: Keys) -> Registry:
    registry = Registry(redis, keys)
    await registry.add_adapter(make_adapter(A))
    return registry


@pytest.fixture
async def worker(actor) -> Actor:
    started: Actor = await actor()
    return started


async def bury(worker: Actor, queue: Queue, num_jobs: int = 1) -> None:
    """Let jobs of A kill the worker until they are dead letters."""
    for _ in range(num_jobs):
        job = make_job(A)
        await queue.enqueue(job, LIMITS)
        for _ in range(DEATHS):
            assert await worker.claim_ids() == [job.id]
            await worker.die()
            await worker.register()


async def state_of(registry: Registry) -> AdapterState:
    adapter = await registry.adapter("a")
    assert adapter is not None
    return adapter.state


@pytest.fixture
async def quarantined(registry: Registry, worker: Actor, queue: Queue) -> None:
    await bury(worker, queue, DEAD_JOBS_UNTIL_QUARANTINE)
    assert await state_of(registry) is AdapterState.QUARANTINED


@pytest.mark.usefixtures("quarantined")
async def test_a_version_is_released_only_after_its_time(
    registry: Registry, redis: Redis, keys: Keys
) -> None:
    assert await registry.release_quarantined(after_ms=HOUR_MS) == []
    assert await state_of(registry) is AdapterState.QUARANTINED
    await redis.zincrby(keys.quarantined, -HOUR_MS, A)  # type: ignore[arg-type]  # str is a value
    assert await registry.release_quarantined(after_ms=HOUR_MS) == [A]
    assert await state_of(registry) is AdapterState.READY
    assert await registry.release_quarantined(after_ms=HOUR_MS) == []


@pytest.mark.usefixtures("quarantined")
async def test_a_released_version_serves_jobs_again(
    registry: Registry, worker: Actor, queue: Queue
) -> None:
    assert await registry.release_adapter("a") == A
    job = make_job(A)
    await queue.enqueue(job, LIMITS)
    assert await worker.claim_ids() == [job.id]


@pytest.mark.usefixtures("quarantined")
async def test_a_single_dead_job_quarantines_a_released_version_again(
    registry: Registry, worker: Actor, queue: Queue
) -> None:
    await registry.release_adapter("a")
    await bury(worker, queue)
    assert await state_of(registry) is AdapterState.QUARANTINED
    assert await registry.release_quarantined(after_ms=HOUR_MS) == []
    assert await registry.release_quarantined(after_ms=0) == [A]


@pytest.mark.usefixtures("quarantined")
async def test_an_answered_job_ends_the_probation_of_a_released_version(
    registry: Registry, worker: Actor, queue: Queue
) -> None:
    await registry.release_adapter("a")
    await queue.enqueue(make_job(A), LIMITS)
    (claimed,) = await worker.claim()
    await worker.finish(claimed)
    await bury(worker, queue)
    assert await state_of(registry) is AdapterState.READY


@pytest.mark.usefixtures("quarantined")
async def test_jobs_that_were_still_to_be_ended_are_served_after_a_release(
    registry: Registry, worker: Actor, queue: Queue, redis: Redis, keys: Keys
) -> None:
    await registry.release_adapter("a")
    job = make_job(A)
    await queue.enqueue(job, LIMITS)
    # The state of a version that is quarantined while no process sweeps.
    await redis.hset(keys.version(A), "state", "quarantined")  # type: ignore[misc]
    await redis.sadd(keys.doomed, A)  # type: ignore[misc]
    await redis.zrem(keys.ready, A)
    await registry.release_adapter("a")
    assert await worker.claim_ids() == [job.id]


@pytest.mark.usefixtures("quarantined")
async def test_a_version_that_was_unloaded_is_not_released(
    registry: Registry, redis: Redis, keys: Keys
) -> None:
    await registry.unload_adapter("a")
    assert await registry.release_quarantined(after_ms=0) == []
    assert await redis.exists(keys.quarantined) == 0
    await registry.forget_unused()
    assert (await Auditor(redis, keys).audit(settle_s=0)).strays == ()


async def test_a_version_that_is_not_quarantined_is_not_released(registry: Registry) -> None:
    with pytest.raises(JobFailed, match="a@1 isn't quarantined"):
        await registry.release_adapter("a")
    assert await registry.release_adapter("b") is None
