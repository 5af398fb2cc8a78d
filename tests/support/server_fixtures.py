"""Fixtures for tests of a running server; the conftest that imports them defines `server`."""

from collections.abc import AsyncIterator

import httpx
import openai
import pytest
from served_tiny import TinyModels
from servers import Server

from shared.store.redis.connection import connect
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    return TinyModels.save(tmp_path_factory.mktemp("models"))


@pytest.fixture
async def client(server: Server) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=server.api_url, api_key="none", max_retries=0, timeout=100
    ) as client:
        yield client


@pytest.fixture
async def http(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """Client for requests that OpenAI's client can't send."""
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
        yield http


@pytest.fixture
async def views(server: Server) -> AsyncIterator[PoolViews]:
    redis = connect(server.redis.url)
    yield PoolViews(redis, Keys("main"))
    await redis.aclose()
