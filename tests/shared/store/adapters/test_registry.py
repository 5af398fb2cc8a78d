"""The base model, the names of adapters, and their versions, also in quarantine."""

import asyncio
from dataclasses import replace

import pytest
from adapter_versions import BASE, version_of
from queue_support import INFO, LIMITS, Actor, eventually, make_adapter, make_job

from shared.errors import ErrorCode, JobFailed, SettingsError
from shared.protocol.adapters import Adapter, AdapterState
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


async def test_names_resolve_to_versions(registry: Registry, redis: Redis) -> None:
    empty = Registry(redis, Keys("empty"))
    found = await empty.base(), await empty.resolve("base"), await empty.adapters()
    assert found == (None, None, [])
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


ONE, TWO = version_of("1"), version_of("2")


async def load(registry: Registry, *adapters: Adapter) -> None:
    for adapter in adapters:
        await registry.load_adapter(adapter, replace=True)


async def test_a_name_that_is_replaced_while_it_is_looked_up_is_found(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    await load(registry, ONE)
    read = registry.adapter_by_version

    async def read_late(version: AdapterVersion) -> Adapter | None:
        monkeypatch.setattr(registry, "adapter_by_version", read)
        await registry.load_adapter(TWO, replace=True, keep_versions=0)
        return await read(version)

    monkeypatch.setattr(registry, "adapter_by_version", read_late)
    assert await registry.resolve("a") == "a@2"


async def test_versions_beyond_the_previous_four_are_retired_and_forgotten(
    registry: Registry, redis: Redis, keys: Keys
) -> None:
    await load(registry, *(version_of(str(n)) for n in range(6)))
    assert await registry.resolve("a@0") is None
    assert await registry.resolve("a@1") == "a@1"
    assert await registry.forget_unused() == []  # a request may be admitted but not yet enqueued
    await redis.zadd(keys.retired, {"a@0": 0})
    assert await swept(registry) == ["a@0"]
    assert await registry.adapter_by_version(AdapterVersion("a@0")) is None


async def swept(registry: Registry) -> list[AdapterVersion]:
    """Return the forgotten versions once there are any, since one call per second does the work."""
    forgotten: list[AdapterVersion] = await eventually(registry.forget_unused)
    return forgotten


async def test_an_unloaded_name_takes_no_new_jobs(registry: Registry, queue: Queue) -> None:
    await load(registry, ONE, TWO)
    admitted = [make_job("a@1"), make_job("a@2")]  # but not yet enqueued
    assert await registry.unload_adapter("a")
    for name in ("a", "a@1", "a@2", "base:a"):
        assert await registry.resolve(name) is None
    assert await registry.adapters() == []
    for job in admitted:
        with pytest.raises(JobFailed, match="'a' was unloaded") as refusal:
            await queue.enqueue(job, LIMITS)
        assert refusal.value.error.code is ErrorCode.MODEL_NOT_FOUND
    assert set(await swept(registry)) == {"a@1", "a@2"}
    with pytest.raises(JobFailed, match="was unloaded"):
        await queue.enqueue(admitted[0], LIMITS)


async def test_an_unloaded_version_stays_until_its_last_job_has_ended(
    registry: Registry, queue: Queue, actor
) -> None:
    await load(registry, ONE)
    jobs = [make_job("a@1"), make_job("a@1")]
    for job in jobs:
        await queue.enqueue(job, LIMITS)
    worker = await actor(holds=["a@1"])
    (running,) = await worker.claim(sequences=1)
    await registry.unload_adapter("a")
    assert await registry.forget_unused() == []
    await worker.finish(running)
    (waiting,) = await worker.claim()
    assert (running.job, waiting.job) == tuple(jobs)
    assert await registry.forget_unused() == []
    assert await registry.adapter_by_version(ONE.version)
    await worker.finish(waiting)
    assert await swept(registry) == ["a@1"]
    assert (await queue.beat(worker.id, lease_ms=60_000, info=INFO)).num_forgotten == 1


async def test_a_job_of_a_dead_worker_keeps_its_unloaded_version(
    registry: Registry, queue: Queue, actor
) -> None:
    await load(registry, ONE)
    await queue.enqueue(make_job("a@1"), LIMITS)
    worker = await actor(holds=["a@1"])
    assert len(await worker.claim()) == 1
    await registry.unload_adapter("a")
    await worker.die()
    assert await registry.forget_unused() == []
    other = await actor("w2", holds=["a@1"])
    (claimed,) = await other.claim()
    await other.finish(claimed)
    assert await swept(registry) == ["a@1"]


async def test_a_name_can_be_loaded_again_while_it_drains(
    registry: Registry, queue: Queue, redis: Redis, keys: Keys
) -> None:
    await load(registry, TWO, ONE)
    await queue.enqueue(make_job("a@1"), LIMITS)
    await registry.unload_adapter("a")
    await registry.load_adapter(ONE, replace=False)
    assert await registry.resolve("a") == "a@1"
    await queue.enqueue(make_job("a@1"), LIMITS)
    with pytest.raises(JobFailed, match="no previous version"):
        await registry.roll_back_adapter("a")
    assert await swept(registry) == ["a@2"]
    assert await redis.ttl(keys.adapter("a")) == -1


async def test_an_unloaded_adapter_of_a_worker_stays_unloaded(
    registry: Registry, redis: Redis, keys: Keys
) -> None:
    await load(registry, ONE)
    await registry.add_adapter(version_of("5", name="b"))
    for name in ("a", "b"):
        await registry.unload_adapter(name)
    assert await redis.ttl(keys.adapter("a")) > 3000
    assert await redis.ttl(keys.adapter("b")) == -1
    await load(registry, ONE)
    assert await redis.ttl(keys.adapter("a")) == -1


async def test_the_epoch_changes_with_the_base_and_when_redis_has_forgotten_it(
    registry: Registry, redis: Redis, keys: Keys
) -> None:
    epoch = await registry.set_base(BASE)
    assert await registry.set_base(replace(BASE, created_s=2)) == epoch
    await redis.delete(keys.base)
    second = await registry.set_base(BASE)
    third = await registry.set_base(replace(BASE, version=AdapterVersion("base@2")))
    assert len({epoch, second, third}) == 3
