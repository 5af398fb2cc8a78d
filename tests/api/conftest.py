"""Fixtures of the front end's tests: a pool with models, a worker, a server and its clients."""

from collections.abc import AsyncIterator

import httpx
import openai
import pytest
from api_support import RunningApp, ScriptedWorker, register_models, running_app

from shared.settings import ApiSettings
from shared.store.connection import Redis
from shared.store.keys import Keys
from shared.store.queue import Queue
from shared.store.registry import Registry


@pytest.fixture
def settings(redis_url: str, pool: str) -> ApiSettings:
    return ApiSettings(redis_url=redis_url, pool=pool, max_body_bytes=10_000)


@pytest.fixture
async def registry(redis: Redis, keys: Keys) -> Registry:
    registry = Registry(redis, keys)
    await register_models(registry)
    return registry


@pytest.fixture
async def worker(queue: Queue, registry: Registry) -> ScriptedWorker:
    return await ScriptedWorker.start(queue)


@pytest.fixture
async def server(settings: ApiSettings, registry: Registry) -> AsyncIterator[RunningApp]:
    async with running_app(settings) as running:
        yield running


@pytest.fixture
async def http(server: RunningApp) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        yield client


@pytest.fixture
async def client(server: RunningApp) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        api_key="none", base_url=f"{server.url}/v1", max_retries=0, timeout=20
    ) as client:
        yield client
