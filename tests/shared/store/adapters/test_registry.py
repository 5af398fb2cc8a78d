"""The base model and the names of adapters, and versions in quarantine."""

import asyncio
from dataclasses import replace

import pytest
from adapter_versions import BASE, version_of
from queue_support import LIMITS, Actor, make_adapter, make_job

from shared.errors import ErrorCode, JobFailed, SettingsError
from shared.protocol.adapters import AdapterState
from shared.protocol.ids import AdapterVersion
from shared.protocol.jobs import JobState
from shared.store.adapters.adapter_views import AdapterViews
from shared.store.adapters.registry import Registry
from shared.store.audit.auditor import Auditor
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import CHUNK, Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

ADAPTER = version_of("abc", name="org/sql", created_s=2)


@pytest.fixture
def registry(redis: Redis, keys: Keys) -> Registry:
    return Registry(redis, keys)


async def test_names_resolve_to_versions(registry: Registry) -> None:
    assert (await registry.base(), await registry.resolve("base")) == (None, None)
    assert await registry.adapters() == []
    await registry.set_base(BASE)
    await registry.add_adapter(ADAPTER)
    assert await registry.base() == BASE
    assert await registry.resolve("base") == "base@1"
    assert await registry.resolve("org/sql") == "org/sql@abc"
    for named in ("org/sql@abc", "base:org/sql", "base:org/sql@abc"):
        assert await registry.resolve(named) == "org/sql@abc"
    assert await registry.resolve("base@1") == "base@1"
    for unknown in ("org/sql@def", "other:org/sql", "base:", "base:base", "sql", "org/sql@", ""):
        assert await registry.resolve(unknown) is None


async def test_more_adapters_than_one_round_trip_reads_are_listed_by_name(
    registry: Registry, redis: Redis, keys: Keys
) -> None:
    await registry.set_base(BASE)
    names = [f"a{number:04}" for number in range(2 * CHUNK + 1)]
    for start in range(0, len(names), 50):  # each call in progress has a connection of its own
        some = names[start : start + 50]
        added = (replace(ADAPTER, name=name, version=AdapterVersion(f"{name}@1")) for name in some)
        await asyncio.gather(*(registry.add_adapter(adapter) for adapter in added))
    versions = [AdapterVersion(f"{name}@1") for name in names]
    assert [adapter.name for adapter in await registry.adapters()] == names
    views = await AdapterViews(redis, keys).adapters()
    assert [view.current.adapter.version for view in views] == versions
    await redis.delete(keys.version(versions[-1]))
    assert await registry.forgotten(versions) == versions[-1:]
    await registry.set_base(replace(BASE, version=AdapterVersion("base@2")))
    assert await registry.adapters() == []
    assert await registry.forgotten(versions) == versions


async def test_a_quarantined_adapter_is_refused_until_its_weights_change(
    registry: Registry, redis: Redis, keys: Keys
) -> None:
    await registry.add_adapter(ADAPTER)
    await redis.hset(keys.version(ADAPTER.version), "state", "quarantined")
    await registry.add_adapter(ADAPTER)  # as by a restarted worker
    for name in (ADAPTER.name, ADAPTER.version):
        with pytest.raises(JobFailed, match="quarantined") as refusal:
            await registry.resolve(name)
        assert refusal.value.error.code == ErrorCode.ADAPTER_UNAVAILABLE
    await registry.add_adapter(replace(ADAPTER, version="org/sql@new"))
    assert await registry.resolve(ADAPTER.name) == "org/sql@new"


async def test_the_base_changes_only_when_no_worker_serves_another(
    registry: Registry, actor, queue: Queue
) -> None:
    await registry.set_base(BASE)
    worker = await actor(holds=["base@1"])
    other = replace(BASE, version="base@2", max_model_len=16)
    with pytest.raises(SettingsError, match="serves base@1, not base@2"):
        await registry.set_base(other)
    await registry.set_base(replace(BASE, source="moved"))
    await queue.leave(worker.id)
    await registry.set_base(other)
    assert await registry.base() == other


A = AdapterVersion("a@1")
DEAD_JOBS_UNTIL_QUARANTINE = 3
HOUR_MS = 3_600_000


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
    await registry.add_adapter(make_adapter(A))
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


async def test_waiting_jobs_of_all_quarantined_versions_end(
    actor, enqueue, queue: Queue, views: PoolViews, redis, keys
) -> None:
    worker = await actor(holds=["b@1"])
    await enqueue("b@1")
    await worker.claim()  # a running job keeps its version in `doomed`
    waiting = [await enqueue("a@1") for _ in range(100)]
    await redis.sadd(keys.doomed, "a@1", "b@1")
    await queue.reap()
    states = {(await views.job(job.id)).state for job in waiting}
    assert states == {JobState.FAILED}
    assert await redis.smembers(keys.doomed) == {b"b@1"}
