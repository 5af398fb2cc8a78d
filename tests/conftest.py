"""Fixtures for all tests: a real Redis, and a pool in it for each test."""

import gc
import os

# Threads slow tiny models down, and torch's threads spin while other processes need the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import ssl
import uuid
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import structlog

from ops.local.embedded_redis import EmbeddedRedis, start_redis
from shared.store.adapters.residency import ResidencyStore
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis, connect
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews
from worker.kernels.cpu.levels import LevelUnavailable, cpu_flags, forced_level

pytest_plugins = ["left_out", "outcomes", "shared_servers"]

# A slow example says nothing about the code, since the machine may be busy.
hypothesis.settings.register_profile("no-deadline", deadline=None)
hypothesis.settings.load_profile("no-deadline")


def pytest_configure() -> None:
    """Refuse a forced level of kernels that this CPU can't run, instead of failing each test."""
    try:
        forced_level(cpu_flags())
    except LevelUnavailable as error:
        raise pytest.UsageError(str(error)) from None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect no garbage while tests are collected, which takes a third of that time.

    What exists then lives to the end, so later garbage collections leave it out.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True)
def fresh_logging() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture(scope="session", autouse=True)
def tls_context() -> Iterator[None]:
    """Let all HTTP clients share one TLS context: to read the certificates takes 10 ms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", cache(ssl.create_default_context))
        yield


@pytest.fixture(scope="session", autouse=True)
def adapter_store(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep copies of adapters in a temporary folder instead of the user's cache."""
    os.environ["LORIKEET_ADAPTER_STORE"] = str(tmp_path_factory.mktemp("adapter-store"))


@pytest.fixture(scope="session", autouse=True)
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the data of `lorikeet up` and of `lorikeet login` in temporary folders."""
    os.environ["XDG_DATA_HOME"] = str(tmp_path_factory.mktemp("data"))
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """REDIS_URL, or the URL of a server that is stopped after the tests."""
    if url := os.environ.get("REDIS_URL"):
        yield url
        return
    server = start_redis(None)
    yield server.url
    server.stop()


@pytest.fixture
def pool() -> str:
    """Name of a pool that no other test uses."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def keys(pool: str) -> Keys:
    return Keys(pool)


@pytest.fixture
async def redis(redis_url: str, keys: Keys) -> AsyncIterator[Redis]:
    """Client of Redis. The pool's keys are deleted after the test."""
    client = connect(redis_url)
    yield client
    async for key in client.scan_iter(match=f"{keys.prefix}*", count=1000):
        await client.delete(key)
    await client.aclose()


@pytest.fixture
def residency(redis: Redis, keys: Keys) -> ResidencyStore:
    return ResidencyStore(redis, keys)


@pytest.fixture
def queue(redis: Redis, keys: Keys, residency: ResidencyStore) -> Queue:
    return Queue(redis, keys, residency=residency)


@pytest.fixture
def views(redis: Redis, keys: Keys) -> PoolViews:
    return PoolViews(redis, keys)


@pytest.fixture
def start_server() -> Iterator[Callable[..., EmbeddedRedis]]:
    """Return a function that starts servers, which the test may fill, stop or configure."""
    servers: list[EmbeddedRedis] = []

    def start(directory: Path | None = None, **options: Any) -> EmbeddedRedis:
        servers.append(start_redis(directory, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def own_server(start_server: Callable[..., EmbeddedRedis]) -> EmbeddedRedis:
    return start_server()


@pytest.fixture
async def open_client() -> AsyncIterator[Callable[[str], Redis]]:
    """Return a function that connects to other servers than `redis_url`."""
    clients: list[Redis] = []

    def open_one(url: str) -> Redis:
        clients.append(connect(url))
        return clients[-1]

    yield open_one
    for opened in clients:
        await opened.aclose()
