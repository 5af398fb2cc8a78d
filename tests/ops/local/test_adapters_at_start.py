"""Adapters of a start, beside those that the registry kept."""

import pytest
from adapter_versions import BASE, version_of

from ops.local.starting_pool import (
    AtStart,
    adapters_at_start,
    begin_start,
    unload_left_out,
)
from shared.protocol.adapters import Adapter
from shared.store.adapters.registry import Registry
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

ONE, TWO = version_of("1"), version_of("2")
OTHER = version_of("1", name="other")


@pytest.fixture
async def registry(redis: Redis, keys: Keys) -> Registry:
    registry = Registry(redis, keys)
    await registry.set_base(BASE)
    return registry


async def names(registry: Registry) -> list[str]:
    return [adapter.name for adapter in await registry.adapters()]


async def at_start(redis: Redis, keys: Keys, adapter: Adapter) -> AtStart:
    [found] = await adapters_at_start(redis, keys, [adapter.name, "unknown"])
    return found


async def test_a_name_that_was_unloaded_is_served_again(
    redis: Redis, keys: Keys, registry: Registry
) -> None:
    await registry.add_adapter(ONE)
    await registry.unload_adapter("a")
    assert await registry.add_adapter(ONE) is None
    assert (await at_start(redis, keys, ONE)).served is None

    await begin_start(redis, keys, ["a"])
    assert await registry.add_adapter(ONE) == ONE.version
    assert (await at_start(redis, keys, ONE)).served == ONE


async def test_a_name_of_an_earlier_start_alone_is_unloaded_and_a_loaded_one_stays(
    redis: Redis, keys: Keys, registry: Registry
) -> None:
    await registry.add_adapter(ONE)
    await registry.load_adapter(OTHER, replace=False)
    await begin_start(redis, keys, [])
    assert await names(registry) == ["other"]


async def test_a_version_that_a_client_has_set_stays(
    redis: Redis, keys: Keys, registry: Registry
) -> None:
    await registry.add_adapter(ONE)
    await registry.load_adapter(TWO, replace=True)
    await begin_start(redis, keys, ["a"])
    assert await registry.add_adapter(ONE) == TWO.version
    found = await at_start(redis, keys, ONE)
    assert (found.given, found.served, found.is_by_client) == (ONE.version, TWO, True)


async def test_names_of_an_earlier_start_leave_nothing_that_stays_forever(
    redis: Redis, keys: Keys, registry: Registry
) -> None:
    await registry.add_adapter(ONE)
    await registry.add_adapter(OTHER)
    await registry.load_adapter(version_of("2", name="other"), replace=True)
    await begin_start(redis, keys, [])
    await registry.unload_adapter("other")
    for name in ("a", "other"):
        assert await redis.ttl(keys.adapter(name)) > 0
        assert await redis.ttl(keys.previous(name)) > 0


async def test_a_left_out_adapter_is_unloaded_unless_a_client_has_set_its_version(
    redis: Redis, keys: Keys, registry: Registry
) -> None:
    await registry.add_adapter(ONE)
    await registry.load_adapter(OTHER, replace=False)
    assert await unload_left_out(redis, keys, ["a", "other", "unknown", "base"]) == {"a"}
    assert await names(registry) == ["other"]
    assert await redis.ttl(keys.adapter("a")) > 0
