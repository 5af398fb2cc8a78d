"""Adapters that clients load, replace, roll back and unload while jobs run."""

from dataclasses import replace

import pytest
from adapter_versions import BASE, version_of
from queue_support import INFO, LIMITS, eventually, make_job

from shared.errors import ErrorCode, JobFailed
from shared.protocol.adapters import Adapter
from shared.protocol.ids import AdapterVersion
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

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
    await eventually(lambda: sweeps_nothing(registry))
    assert await registry.adapter_by_version(ONE.version)
    await worker.finish(waiting)
    assert await swept(registry) == ["a@1"]
    assert (await queue.beat(worker.id, lease_ms=60_000, info=INFO)).num_forgotten == 1


async def sweeps_nothing(registry: Registry) -> bool:
    return await registry.forget_unused() == []


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
