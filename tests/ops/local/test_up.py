"""How `lorikeet up` waits for its server."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from threaded_server import running

from ops.local import up
from ops.local.starting_pool import StartingPool, starting_pool
from shared.api_keys import ApiKey
from shared.protocol.ids import WorkerId
from shared.protocol.workers import WorkerInfo
from shared.store.connection import Redis
from shared.store.keys import Keys
from shared.store.queue import Queue

MODELS = b'{"data": [{"id": "base"}, {"id": "pirate"}]}'


class Starting(ThreadingHTTPServer):
    """A ready server whose models are the next of `replies`; the last reply repeats."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies = [(200, MODELS)]
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.sent_keys: list[str | None] = []


class Handler(BaseHTTPRequestHandler):
    server: Starting

    def do_GET(self) -> None:
        status, body = 200, b"{}"
        if self.path == "/v1/models":
            self.server.sent_keys.append(self.headers["Authorization"])
            replies = self.server.replies
            status, body = replies.pop(0) if len(replies) > 1 else replies[0]
        self.send_response(status)
        self.send_header("Content-Length", str(max(len(body), 2)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Starting]:
    with running(Starting()) as server:
        yield server


@pytest.fixture
async def starting(redis_url: str, pool: str, queue: Queue) -> AsyncIterator[StartingPool]:
    """A pool with a worker."""
    await join(queue)
    async with starting_pool(redis_url, pool, {}) as found:
        yield found


async def join(queue: Queue, pid: int = 1) -> None:
    """Register a worker."""
    info = WorkerInfo(model="base", device="cpu", dtype="float32", version="1", max_num_seqs=1)
    await queue.register(WorkerId(f"host:{pid}:0"), lease_ms=20_000, info=info, residents=[])


async def announced(pool: StartingPool, url: str, *keys: ApiKey) -> list[str]:
    async with asyncio.timeout(10):
        return list(await up._names_when_ready(url, keys, pool))


async def test_the_server_is_reached_without_the_proxy(
    starting: StartingPool, server: Starting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert await announced(starting, server.url) == ["base", "pirate"]


@pytest.mark.parametrize(
    "first",
    [(503, b"{}"), (200, b'{"data": []}'), (200, b"")],
    ids=["refused", "none yet", "cut off"],
)
async def test_names_are_requested_until_there_are_some(
    starting: StartingPool, server: Starting, first: tuple[int, bytes]
) -> None:
    server.replies.insert(0, first)
    assert await announced(starting, server.url) == ["base", "pirate"]


async def test_names_are_requested_with_a_key(starting: StartingPool, server: Starting) -> None:
    keys = ApiKey("red", "r" * 16), ApiKey("blue", "b" * 16)
    assert await announced(starting, server.url, *keys)
    assert server.sent_keys == [f"Bearer {'r' * 16}"]


async def test_a_server_without_a_worker_is_not_ready(
    redis_url: str, pool: str, queue: Queue, server: Starting
) -> None:
    await join(queue, pid=1)
    async with starting_pool(redis_url, pool, {}) as starting:
        await starting.begin()  # from here on, the worker is one of an earlier run
        waiting = asyncio.create_task(announced(starting, server.url))
        await asyncio.wait([waiting], timeout=3 * up.POLL_S)
        assert not waiting.done()
        await join(queue, pid=2)
        assert await waiting == ["base", "pirate"]


async def test_a_process_that_had_joined_the_pool_is_not_to_blame_for_its_end(
    starting: StartingPool,
) -> None:
    assert not await starting.never_started(1)
    assert await starting.never_started(2)


async def test_workers_whose_ids_have_another_form_are_of_no_process(
    starting: StartingPool, queue: Queue
) -> None:
    info = WorkerInfo(model="base", device="cpu", dtype="float32", version="1", max_num_seqs=1)
    for wid in ("worker", "host:x:0"):
        await queue.register(WorkerId(wid), lease_ms=20_000, info=info, residents=[])
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
