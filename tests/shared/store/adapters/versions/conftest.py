"""Fixtures of the tests of versions: a registry with the adapter `a`, which is `a@1`."""

import pytest
from adapter_versions import version_of

from shared.store.adapters.registry import Registry


@pytest.fixture
async def registry(registry: Registry) -> Registry:
    await registry.load_adapter(version_of("1"), replace=False, by="red")
    return registry
