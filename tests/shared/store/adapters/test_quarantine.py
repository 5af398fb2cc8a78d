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


async def state_of(registry: Registry) -> AdapterState:
    adapter = await registry.adapter("a")
    assert adapter is not None
    return adapter.state


@pytest.fixture
async def quarantined(registry: Registry, worker: Actor, queue: Queue) -> None:
    for _ in range(DEAD_JOBS_UNTIL_QUARANTINE):
        job = make_job(A)
        await queue.enqueue(job, LIMITS)
        await worker.die_of(job)
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
