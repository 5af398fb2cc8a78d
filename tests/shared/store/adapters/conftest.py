"""Fixtures of the tests of versions: a registry with the adapter `a`, which is `a@1`."""

import pytest
from adapter_versions import BASE, version_of

from shared.store.adapters.registry import Registry
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys


@pytest.fixture
async def registry(redis: Redis, keys: Keys) -> Registry:
    registry = Registry(redis, keys)
    await registry.set_base(BASE)
    await registry.load_adapter(version_of("1"), replace=False, by="red")
    return registry
