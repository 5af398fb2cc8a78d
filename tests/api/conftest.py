"""Fixtures for a pool with models, a worker, a server and its clients."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import openai
import pytest
from adapter_readers import Reader, reading
from api_support import RunningApp, ScriptedWorker, client_of, register_models, running_app

from api.app import create_app
from shared.settings import ApiSettings
from shared.store.access.key_store import KeyStore
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys


@pytest.fixture(autouse=True)
def patient_front_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Redis answer late, as on a busy machine. Where tests need it away, it is really away."""
    monkeypatch.setattr("api.app.REDIS_TIMEOUT_S", 20.0)


@pytest.fixture
def changes() -> dict[str, Any]:
    """Settings that differ for one test; `raw_client.with_settings` sets them."""
    return {}


@pytest.fixture
def settings(redis_url: str, pool: str, changes: dict[str, Any]) -> ApiSettings:
    settings = ApiSettings(redis_url=redis_url, pool=pool, max_body_bytes=10_000)
    return settings.model_copy(update=changes)


@pytest.fixture
async def registry(redis: Redis, keys: Keys) -> Registry:
    registry = Registry(redis, keys)
    await register_models(registry)
    return registry


@pytest.fixture
def store(redis: Redis, keys: Keys) -> KeyStore:
    """Stored keys of the pool."""
    return KeyStore(redis, keys)


@pytest.fixture
async def worker(queue: Queue, registry: Registry) -> ScriptedWorker:
    return await ScriptedWorker.start(queue)


@pytest.fixture
async def server(settings: ApiSettings, registry: Registry) -> AsyncIterator[RunningApp]:
    async with running_app(settings) as running:
        yield running


@pytest.fixture
async def http(server: RunningApp) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture
async def other(server: RunningApp, settings: ApiSettings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of another front end of the same pool."""
    async with (
        running_app(settings) as running,
        httpx.AsyncClient(base_url=running.url, timeout=60) as client,
    ):
        yield client


@pytest.fixture
async def client(server: RunningApp) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        api_key="none", base_url=f"{server.url}/v1", max_retries=0, timeout=60
    ) as client:
        yield client


@pytest.fixture
async def direct(settings: ApiSettings, registry: Registry) -> AsyncIterator[httpx.AsyncClient]:
    """A client that calls the app without a network."""
    async with client_of(create_app(settings)) as client:
        yield client


@pytest.fixture
async def readers(redis: Redis, keys: Keys) -> AsyncIterator[Callable[..., Any]]:
    """A function that starts workers which answer inspections."""
    async with reading(redis, keys) as start:
        yield start


@pytest.fixture
async def reader(readers: Any, registry: Registry) -> Reader:
    """A worker that answers inspections."""
    one: Reader = await readers()
    return one


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The chats whose tokens were counted. Each has 7, and no worker counts them."""
    chats: list[Any] = []

    async def count(_: Any, job: Any) -> int:
        chats.append(job)
        return 7

    monkeypatch.setattr("api.answers.tokenization.TokenizerCalls.count_tokens", count)
    return chats
