"""Fixtures of the worker's tests. Their classes are in tests/support."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import pytest
from scripted_engine import ScriptedEngine
from tiny import tiny_model
from worker_support import Client, Start, running

from shared.cancel_tasks import cancel_tasks
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from worker.lora.base.modules import BaseModules, base_modules
from worker.service import Worker


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


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine(step_s=0.002)


@pytest.fixture
def start(redis: Redis, pool: str) -> Start:

    def start_one(
        engine: ScriptedEngine, **settings: object
    ) -> AbstractAsyncContextManager[Worker]:
        return running(redis, engine, pool, **settings)

    return start_one
