"""Incomplete requests and clients that never read don't slow other clients down."""

import asyncio
import socket
import statistics
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import orjson
import psutil
import pytest
from api_processes import is_ready
from servers import Process, start_lorikeet, wait_for
from simulated_workers import NAME, worker_process

from ops.local.embedded_redis import EmbeddedRedis
from shared.cancel_tasks import cancel_tasks

HALF_SENT, SILENT = 1000, 200
REQUESTS = 300
PORT = 23431
URL = f"http://127.0.0.1:{PORT}"
MIB = 1 << 20
pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


@pytest.fixture
def front_end(own_server: EmbeddedRedis, tmp_path: Path) -> Iterator[Process]:
    """Front end with a body timeout of 10 s, and a worker that computes a token each 20 ms."""
    log = tmp_path / "api.log"
    words = ["api", "--port", str(PORT), "--redis-url", own_server.url, "--body-timeout-s", "10"]
    process = start_lorikeet(words, log)
    with worker_process(
        own_server.url, "main", simulated_step_ms=20, max_num_seqs=512, max_model_len=1000
    ):
        wait_for(lambda: is_ready(URL), log.read_text, process)
        yield process
    process.kill()
    process.wait()


async def test_a_flood_changes_neither_other_clients_latency_nor_the_front_ends_memory(
    front_end: Process, record_property
) -> None:
    memory = psutil.Process(front_end.pid).memory_info
    async with httpx.AsyncClient(base_url=URL, timeout=30) as client, background_stream(client):
        await latencies(client, REQUESTS)  # warm-up
        before = statistics.median(await latencies(client, REQUESTS))
        rss = memory().rss
        sockets = [*half_sent(HALF_SENT), *silent_readers(SILENT)]
        try:
            during = statistics.median(await latencies(client, REQUESTS))
            peak = memory().rss
            for _ in range(20):
                await asyncio.sleep(1)
                peak = max(peak, memory().rss)
            later = statistics.median(await latencies(client, REQUESTS))
            num_open = sum(not is_closed(each) for each in sockets[:HALF_SENT])
        finally:
            for each in sockets:
                each.close()
    growth = (peak - rss) / MIB
    record_property("median_ms", [1000 * each for each in (before, during, later)])
    record_property("growth_mib", growth)
    found = f"{before=:.4f} {during=:.4f} {later=:.4f} {growth=:.1f} {num_open=}"
    assert max(during, later) < 1.5 * before, found
    assert growth < 64, found
    assert num_open == 0, found


@asynccontextmanager
async def background_stream(client: httpx.AsyncClient) -> AsyncIterator[None]:
    """Read one stream after another, so that the engine is equally busy in all measurements."""

    async def read() -> None:
        body = {
            "model": NAME,
            "prompt": "hello",
            "stream": True,
            "max_tokens": 900,
            "ignore_eos": True,
        }
        while True:
            async with client.stream("POST", "/v1/completions", json=body) as response:
                async for _ in response.aiter_lines():
                    pass

    reading = asyncio.create_task(read())
    yield
    await cancel_tasks(reading)


async def latencies(client: httpx.AsyncClient, count: int) -> Sequence[float]:
    """Measure the seconds of `count` sequential requests for one token."""
    body = {"model": NAME, "prompt": "hello", "max_tokens": 1}
    found = []
    for _ in range(count):
        start_s = time.perf_counter()
        reply = await client.post("/v1/completions", json=body)
        assert reply.status_code == 200
        found.append(time.perf_counter() - start_s)
    return found


def connection() -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.connect(("127.0.0.1", PORT))
    return made


def half_sent(count: int) -> list[socket.socket]:
    """Open connections whose request headers or bodies never end."""
    sockets = [connection() for _ in range(count)]
    for number, each in enumerate(sockets):
        each.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n")
        if number % 2:
            each.sendall(b"Content-Length: 100000\r\n\r\n{")
    return sockets


def silent_readers(count: int) -> list[socket.socket]:
    """Open connections that request long streams and never read them."""
    body = {"model": NAME, "prompt": "hello", "stream": True, "ignore_eos": True}
    raw = orjson.dumps({**body, "max_tokens": 900})
    sockets = [connection() for _ in range(count)]
    for each in sockets:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(raw)}\r\n"
        each.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + raw)
    return sockets


def is_closed(each: socket.socket) -> bool:
    """Return whether the server has closed the connection, possibly after a reply."""
    each.setblocking(False)
    try:
        while each.recv(65536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
