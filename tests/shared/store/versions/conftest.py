"""Fixtures of the tests of versions: a registry with the adapter `a`, which is `a@1`."""

import pytest
from adapter_versions import BASE, version_of

from shared.store.connection import Redis
from shared.store.keys import Keys
from shared.store.registry import Registry


@pytest.fixture
async def registry(redis: Redis, keys: Keys) -> Registry:
    registry = Registry(redis, keys)
    await registry.set_base(BASE)
    await registry.load_adapter(version_of("1"), replace=False, by="red")
    return registry
