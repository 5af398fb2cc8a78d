"""Adapters that are fetched slowly: their progress, and their neighbours."""

import asyncio
import socket
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import pytest
from api_support import BASE
from archives import Member, zip_of
from queue_support import eventually
from source_worker import front_end, source_reader
from web_server import WebServer, response

from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from worker.adapters.disk_store import AdapterStore
from worker.adapters.remote.pinned_connection import AddressCheck
from worker.adapters.source.remote_reads import MAX_STAGING
from worker.lora.base.modules import BaseModules

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def serve(
    redis: Redis, keys: Keys, redis_url: str, base: BaseModules, store: AdapterStore
) -> Serve:
    """Return a function that starts a front end and a worker which allows these sources."""

    def serve_sources(*roots: str) -> AbstractAsyncContextManager[httpx.AsyncClient]:
        addresses = AddressCheck(["localhost"])
        reader = source_reader(base, store, roots, addresses, time_limit_s=60)
        return front_end(redis, keys, redis_url, reader, store)

    return serve_sources


@pytest.fixture
def raw(files: dict[str, bytes]) -> bytes:
    """Response with an archive of a valid adapter."""
    return response(zip_of(Member(*file) for file in files.items()))


def load(http: httpx.AsyncClient, name: str, source: str) -> "asyncio.Task[httpx.Response]":
    body = {"lora_name": name, "lora_path": source}
    return asyncio.create_task(http.post("/v1/load_lora_adapter", json=body))


async def test_bytes_and_phase_are_shown_until_the_adapter_is_registered(
    serve: Serve, web: WebServer, raw: bytes
) -> None:
    head = raw.index(b"\r\n\r\n") + 4
    go = threading.Event()

    def halfway(connection: socket.socket, server: WebServer) -> None:
        connection.sendall(raw[: head + 100])
        go.wait(30)
        connection.sendall(raw[head + 100 :])

    web.scripts["/slow.zip"] = halfway
    url = f"http://localhost:{web.port}/slow.zip"
    async with serve(url) as http:
        loading = load(http, "slow", f"{url}?signature=secret")

        async def is_halfway() -> bool:
            reply = await http.get("/v1/adapters/slow")
            return reply.status_code == 200 and reply.json()["staging"]["bytes"] == 100

        await eventually(is_halfway, within_s=20)
        shown = (await http.get("/v1/adapters/slow")).json()
        assert shown == {
            "id": "slow",
            "object": "adapter",
            "parent": BASE.name,
            "state": "staging",
            "staging": {
                "source": url,
                "phase": "receiving",
                "bytes": 100,
                "total_bytes": len(raw) - head,
            },
        }
        go.set()
        reply = await loading
        assert reply.status_code == 200, reply.text
        loaded = (await http.get("/v1/adapters/slow")).json()
        assert (loaded["state"], loaded["staging"]) == ("ready", None)


async def test_slow_servers_delay_no_adapter_of_this_machine(
    serve: Serve, web: WebServer, good: Path, raw: bytes
) -> None:
    go, arrived = threading.Event(), threading.Semaphore(0)

    def late(connection: socket.socket, server: WebServer) -> None:
        arrived.release()
        go.wait(30)
        connection.sendall(raw)

    web.scripts["/late.zip"] = late
    url = f"http://localhost:{web.port}/late.zip"
    async with serve(url, str(good.parent)) as http:
        loading = [load(http, f"late-{number}", url) for number in range(MAX_STAGING + 2)]
        for _ in range(MAX_STAGING):
            assert await asyncio.to_thread(arrived.acquire, timeout=20)
        assert (await load(http, "local", str(good))).status_code == 200
        assert not arrived.acquire(blocking=False), "another adapter is being fetched"
        go.set()
        assert {reply.status_code for reply in await asyncio.gather(*loading)} == {200}
