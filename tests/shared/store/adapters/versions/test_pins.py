"""Pinned names: which workers should hold their current versions."""

import pytest
from adapter_versions import version_of
from queue_support import INFO

from shared.errors import JobFailed
from shared.protocol.capabilities import Needs
from shared.protocol.ids import AdapterVersion, WorkerId
from shared.store.adapters import pins as pins_module
from shared.store.adapters.pins import PinnedVersion, Pins
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

ONE, TWO = AdapterVersion("a@1"), AdapterVersion("a@2")
WORKER, OTHER = WorkerId("w1"), WorkerId("w2")


@pytest.fixture
def pins(redis: Redis, keys: Keys) -> Pins:
    return Pins(redis, keys)


async def test_a_worker_learns_of_the_current_version_and_its_holders(
    registry: Registry, pins: Pins, queue: Queue
) -> None:
    assert list(await pins.versions(WORKER)) == []
    assert await pins.set("a", 2, by="red")
    await queue.register(OTHER, lease_ms=60_000, info=INFO, residents=[ONE])
    for worker, is_held in ((WORKER, False), (OTHER, True)):
        assert list(await pins.versions(worker)) == [
            PinnedVersion(
                version=ONE,
                replicas=2,
                num_holders=1,
                is_held=is_held,
                needs=Needs(kinds=frozenset(), rank=8),
            )
        ]
    await registry.load_adapter(version_of("2"), replace=True)
    (pinned,) = await pins.versions(OTHER)
    assert (pinned.version, pinned.num_holders) == (TWO, 0)


async def test_a_quarantined_version_is_loaded_by_nobody(
    registry: Registry, pins: Pins, redis: Redis, keys: Keys
) -> None:
    await pins.set("a", 1, by="red")
    await redis.hset(keys.version(ONE), "state", "quarantined")  # type: ignore[misc]
    assert list(await pins.versions(WORKER)) == []


async def test_one_worker_at_a_time_loads_a_pinned_version(
    registry: Registry, pins: Pins, redis: Redis, keys: Keys
) -> None:
    await pins.set("a", 1, by="red")
    (pinned,) = await pins.versions(WORKER)
    assert [await pins.begin_load(pinned) for _ in range(2)] == [True, False]
    assert 0 < await redis.pttl(keys.pin_load(ONE)) <= 30_000
    await pins.end_load(ONE)
    assert await pins.begin_load(pinned)


async def test_a_version_that_others_have_loaded_meanwhile_is_not_loaded(
    registry: Registry, pins: Pins, queue: Queue
) -> None:
    await pins.set("a", 1, by="red")
    (pinned,) = await pins.versions(WORKER)
    await queue.register(OTHER, lease_ms=60_000, info=INFO, residents=[ONE])
    assert not await pins.begin_load(pinned)
    await pins.set("a", 2, by="red")
    (pinned,) = await pins.versions(WORKER)
    assert await pins.begin_load(pinned)


async def test_an_unloaded_name_is_not_pinned(registry: Registry, pins: Pins) -> None:
    await pins.set("a", 2, by="red")
    await registry.unload_adapter("a")
    assert await pins.all() == {}
    assert not await pins.set("a", 1, by="red")


async def test_a_name_is_unpinned(registry: Registry, pins: Pins) -> None:
    for replicas in (1, 3, 0, 0):
        assert await pins.set("a", replicas, by="red")
        assert (await pins.all()).get("a", 0) == replicas


async def test_too_many_pins_are_refused(
    registry: Registry, pins: Pins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pins_module, "MAX_PINS", 1)
    await registry.load_adapter(version_of("1", name="b"), replace=False)
    assert await pins.set("a", 1, by="red")
    with pytest.raises(JobFailed, match="pinned already; unpin one"):
        await pins.set("b", 1, by="red")
    assert await pins.set("a", 5, by="red"), "a pinned name can be changed"
