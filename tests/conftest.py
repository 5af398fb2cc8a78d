"""What every test may ask for: a real Redis, and a pool of its own in it."""

import os

# Tiny models lose by threads, and torch's threads spin when others need the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import structlog

from ops.local.embedded_redis import EmbeddedRedis, start_redis
from shared.store.connection import Redis, connect
from shared.store.keys import Keys
from shared.store.queue import Queue

# The machine may be busy with anything else: a slow example says nothing about the code.
hypothesis.settings.register_profile("no-deadline", deadline=None)
hypothesis.settings.load_profile("no-deadline")


@pytest.fixture(autouse=True)
def fresh_logging() -> Iterator[None]:
    """A test that starts a process' logging leaves none of it to the next."""
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture(scope="session", autouse=True)
def adapter_store(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Copies of tests' adapters don't stay in the user's cache."""
    os.environ["LORIKEET_ADAPTER_STORE"] = str(tmp_path_factory.mktemp("adapter-store"))


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """REDIS_URL, else a server that ends with the tests."""
    if url := os.environ.get("REDIS_URL"):
        yield url
        return
    server = start_redis(None)
    yield server.url
    server.stop()


@pytest.fixture
def pool() -> str:
    """A pool that no other test uses."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def keys(pool: str) -> Keys:
    return Keys(pool)


@pytest.fixture
async def redis(redis_url: str, keys: Keys) -> AsyncIterator[Redis]:
    """A client; the pool's keys are gone after the test."""
    client = connect(redis_url)
    yield client
    async for key in client.scan_iter(match=f"{keys.prefix}*", count=1000):
        await client.delete(key)
    await client.aclose()


@pytest.fixture
def queue(redis: Redis, keys: Keys) -> Queue:
    return Queue(redis, keys)


@pytest.fixture
def start_server() -> Iterator[Callable[..., EmbeddedRedis]]:
    """Starts servers that the test may fill, stop or configure."""
    servers: list[EmbeddedRedis] = []

    def start(directory: Path | None = None, **options: Any) -> EmbeddedRedis:
        servers.append(start_redis(directory, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def own_server(start_server: Callable[..., EmbeddedRedis]) -> EmbeddedRedis:
    """A server for one test."""
    return start_server()


@pytest.fixture
async def open_client() -> AsyncIterator[Callable[[str], Redis]]:
    """Connects to servers other than the common one."""
    clients: list[Redis] = []

    def open_one(url: str) -> Redis:
        clients.append(connect(url))
        return clients[-1]

    yield open_one
    for opened in clients:
        await opened.aclose()
