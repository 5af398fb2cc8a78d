"""Fixtures for commands that are clients of a real front end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import pytest
from api_support import RunningApp, running_app
from command_line import lorikeet

from shared.settings import ApiSettings
from shared.store.access.key_store import KeyStore
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

Run = Callable[..., Awaitable[str]]


@pytest.fixture
def settings(redis_url: str, pool: str) -> ApiSettings:
    return ApiSettings(redis_url=redis_url, pool=pool)


@pytest.fixture
async def front_end(settings: ApiSettings) -> AsyncIterator[RunningApp]:
    async with running_app(settings) as app:
        yield app


@pytest.fixture
def on_front_end(front_end: RunningApp, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs `lorikeet WORDS` on the front end and returns its output."""
    monkeypatch.setattr("api.pools.pool_status.MAX_AGE_S", 0, raising=False)
    monkeypatch.setattr("api.access.stored_keys.MAX_AGE_S", 0)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("LORIKEET_URL", front_end.url)
    monkeypatch.delenv("LORIKEET_API_KEYS", raising=False)
    return partial(asyncio.to_thread, lorikeet)


@pytest.fixture
def store(redis: Redis, keys: Keys) -> KeyStore:
    """Stored keys of the pool."""
    return KeyStore(redis, keys)
