"""How `lorikeet up` waits for its server."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
from key_support import new_key
from queue_support import INFO, make_adapter
from threaded_server import LocalServer, QuietHandler, running

from ops.local import up
from ops.local.starting_pool import StartingPool, starting_pool
from shared.protocol.adapters import BaseModel
from shared.protocol.ids import AdapterVersion, WorkerId
from shared.store.access.key_store import KeyStore
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

BASE = BaseModel(
    name="base", version=AdapterVersion("base@0"), max_model_len=8, source="b", created_s=0
)


class Starting(LocalServer):
    """A server whose readiness is the next of `statuses`; the last one repeats."""

    def __init__(self) -> None:
        super().__init__(Handler)
        self.statuses = [200]


class Handler(QuietHandler):
    server: Starting

    def do_GET(self) -> None:
        statuses = self.server.statuses
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        self.reply(status if self.path == "/ready/worker" else 401, {})


@pytest.fixture
def server() -> Iterator[Starting]:
    with running(Starting()) as server:
        yield server


@pytest.fixture
async def registry(redis: Redis, keys: Keys) -> Registry:
    registry = Registry(redis, keys)
    await registry.set_base(BASE)
    await registry.add_adapter(make_adapter("pirate@1"))
    return registry


@pytest.fixture
async def starting(
    redis_url: str, pool: str, queue: Queue, registry: Registry
) -> AsyncIterator[StartingPool]:
    """A pool with a worker and two models."""
    await join(queue, "host:1:0")
    async with starting_pool(redis_url, pool, {}) as found:
        yield found


async def join(queue: Queue, wid: str) -> None:
    await queue.register(WorkerId(wid), lease_ms=20_000, info=INFO, residents=[])


async def announced(pool: StartingPool, url: str) -> list[str]:
    async with asyncio.timeout(10):
        return list(await up._names_when_ready(url, pool))


async def test_the_server_is_reached_without_the_proxy(
    starting: StartingPool, server: Starting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert await announced(starting, server.url) == ["base", "pirate"]


async def test_names_are_announced_once_the_server_is_ready(
    starting: StartingPool, server: Starting
) -> None:
    server.statuses = [503, 503, 200]
    assert await announced(starting, server.url) == ["base", "pirate"]
    assert server.statuses == [200]


async def test_names_are_announced_although_the_server_demands_a_stored_key(
    starting: StartingPool, server: Starting, redis: Redis, keys: Keys
) -> None:
    await new_key(KeyStore(redis, keys))
    assert await announced(starting, server.url) == ["base", "pirate"]


async def test_a_server_without_a_worker_is_not_ready(
    redis_url: str, pool: str, queue: Queue, registry: Registry, server: Starting
) -> None:
    await join(queue, "host:1:0")
    async with starting_pool(redis_url, pool, {}) as starting:
        await starting.begin()  # from here on, the worker is one of an earlier run
        waiting = asyncio.create_task(announced(starting, server.url))
        await asyncio.wait([waiting], timeout=3 * up.POLL_S)
        assert not waiting.done()
        await join(queue, "host:2:0")
        assert await waiting == ["base"]  # the adapter was one of the earlier run


async def test_a_process_that_had_joined_the_pool_is_not_to_blame_for_its_end(
    starting: StartingPool,
) -> None:
    assert not await starting.never_started(1)
    assert await starting.never_started(2)


async def test_workers_whose_ids_have_another_form_are_of_no_process(
    starting: StartingPool, queue: Queue
) -> None:
    for wid in ("worker", "host:x:0"):
        await join(queue, wid)
    assert await starting.never_started(2)


async def test_no_process_is_to_blame_beside_a_worker_of_another_release(
    starting: StartingPool, redis: Redis, keys: Keys
) -> None:
    await redis.hset(keys.worker(WorkerId("host:1:0")), "info", '{"v": 99}')
    assert not await starting.never_started(2)


async def test_without_redis_no_process_is_to_blame_for_its_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"redis://127.0.0.1:{unused.getsockname()[1]}/0"
    async with starting_pool(url, "main", {}) as pool:
        assert not await pool.never_started(1)
