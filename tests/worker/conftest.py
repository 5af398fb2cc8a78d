"""Fixtures of the worker's tests. Their classes are in tests/support."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tiny import tiny_model
from worker_support import Client

from shared.cancel_tasks import cancel_tasks
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
    client = Client(redis, keys)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(client.read())
        yield client
        await cancel_tasks(reading)
