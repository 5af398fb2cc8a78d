"""Fixtures of the worker's tests. Their classes are in tests/support."""

from collections.abc import AsyncIterator

import pytest
from tiny import tiny_model
from worker_support import Client

from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from worker.lora.base.modules import BaseModules, base_modules


@pytest.fixture(scope="session")
def base() -> BaseModules:
    """Modules of a tiny Llama. Tests don't change them."""
    return base_modules(tiny_model("llama"))


@pytest.fixture
async def client(redis: Redis, keys: Keys) -> AsyncIterator[Client]:
    """Client that reads the events of its jobs."""
    async with Client(redis, keys).reading() as client:
        yield client
