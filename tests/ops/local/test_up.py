"""How `lorikeet up` waits for its server, and which adapters it serves beside those kept."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
from adapter_versions import BASE, version_of
from key_support import new_key
from queue_support import INFO, make_adapter
from threaded_server import LocalServer, QuietHandler, running

from ops.local import up
from ops.local.starting_pool import (
    AtStart,
    StartingPool,
    adapters_at_start,
    begin_start,
    starting_pool,
    unload_left_out,
)
from shared.protocol.adapters import Adapter
from shared.protocol.ids import WorkerId
from shared.store.access.key_store import KeyStore
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys


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
    return registry


@pytest.fixture
async def starting(
    redis_url: str, pool: str, queue: Queue, registry: Registry
) -> AsyncIterator[StartingPool]:
    """A pool with a worker and two models."""
    await registry.add_adapter(make_adapter("pirate@1"))
    await join(queue, "host:1:0")
    async with starting_pool(redis_url, pool, {}) as found:
        yield found


async def join(queue: Queue, wid: str) -> None:
    await queue.register(WorkerId(wid), lease_ms=20_000, info=INFO, residents=[])


async def announced(pool: StartingPool, url: str) -> list[str]:
    async with asyncio.timeout(60):
        return list(await up._names_when_ready(url, pool, lambda _: None))


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
    await registry.add_adapter(make_adapter("pirate@1"))
    await join(queue, "host:1:0")
    async with starting_pool(redis_url, pool, {}) as starting:
        await starting.begin()  # from here on, the worker is one of an earlier run
        waiting = asyncio.create_task(announced(starting, server.url))
        await asyncio.wait([waiting], timeout=3 * up.POLL_S)
        assert not waiting.done()
        await join(queue, "host:2:0")
        assert await waiting == ["base"]  # the adapter was one of the earlier run


async def test_a_process_that_had_joined_the_pool_is_not_to_blame_for_its_end(
    starting: StartingPool, queue: Queue
) -> None:
    for wid in ("worker", "host:x:0"):  # ids of no process
        await join(queue, wid)
    assert not await starting.never_started(1)
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


ONE, TWO = version_of("1"), version_of("2")
OTHER = version_of("1", name="other")


async def names(registry: Registry) -> list[str]:
    return [adapter.name for adapter in await registry.adapters()]


async def at_start(redis: Redis, keys: Keys, adapter: Adapter) -> AtStart:
    [found] = await adapters_at_start(redis, keys, [adapter.name, "unknown"])
    return found


async def test_a_name_that_was_unloaded_is_served_again(
    redis: Redis, keys: Keys, registry: Registry
) -> None:
    await registry.add_adapter(ONE)
    await registry.unload_adapter("a")
    assert await registry.add_adapter(ONE) is None
    assert (await at_start(redis, keys, ONE)).served is None

    await begin_start(redis, keys, ["a"])
    assert await registry.add_adapter(ONE) == ONE.version
    assert (await at_start(redis, keys, ONE)).served == ONE


async def test_a_name_of_an_earlier_start_alone_is_unloaded_and_a_loaded_one_stays(
    redis: Redis, keys: Keys, registry: Registry
) -> None:
    await registry.add_adapter(ONE)
    await registry.load_adapter(OTHER, replace=False)
    await begin_start(redis, keys, [])
    assert await names(registry) == ["other"]


async def test_a_version_that_a_client_has_set_stays(
    redis: Redis, keys: Keys, registry: Registry
) -> None:
    await registry.add_adapter(ONE)
    await registry.load_adapter(TWO, replace=True)
    await begin_start(redis, keys, ["a"])
    assert await registry.add_adapter(ONE) == TWO.version
    found = await at_start(redis, keys, ONE)
    assert (found.given, found.served, found.is_by_client) == (ONE.version, TWO, True)


async def test_names_of_an_earlier_start_leave_nothing_that_stays_forever(
    redis: Redis, keys: Keys, registry: Registry
) -> None:
    await registry.add_adapter(ONE)
    await registry.add_adapter(OTHER)
    await registry.load_adapter(version_of("2", name="other"), replace=True)
    await begin_start(redis, keys, [])
    await registry.unload_adapter("other")
    for name in ("a", "other"):
        assert await redis.ttl(keys.adapter(name)) > 0
        assert await redis.ttl(keys.previous(name)) > 0


async def test_a_left_out_adapter_is_unloaded_unless_a_client_has_set_its_version(
    redis: Redis, keys: Keys, registry: Registry
) -> None:
    await registry.add_adapter(ONE)
    await registry.load_adapter(OTHER, replace=False)
    assert await unload_left_out(redis, keys, ["a", "other", "unknown", "base"]) == {"a"}
    assert await names(registry) == ["other"]
    assert await redis.ttl(keys.adapter("a")) > 0
