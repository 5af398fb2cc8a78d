"""Attacks and slow servers, through the API, Redis and a worker's real reader."""

import asyncio
import os
import re
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import pytest
from api_support import BASE
from archives import Member, zip_of
from attacks import ATTACKS, OUTSIDE, UPLOADS, Attack, BadUpload
from queue_support import eventually
from source_worker import front_end, source_reader, tree
from web_server import Script, WebServer, response

from shared.guarded_fetch import pinned_connection
from shared.guarded_fetch.pinned_connection import AddressCheck, is_public
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from worker.adapters.disk_store import AdapterStore
from worker.adapters.source.remote_reads import MAX_STAGING
from worker.lora.base.modules import BaseModules

LOAD = "/v1/load_lora_adapter"
HOST = "localhost"
STAND_IN = "127.0.0.2"
"""Address of this machine that stands for a public one."""
TIME_LIMIT_S = 3.0


class Names:
    """Resolves names as one attack wants, and counts."""

    def __init__(self, answers: Sequence[Sequence[str]]) -> None:
        self.answers = [*answers]
        self.num_asked = 0

    def __call__(self, host: str, port: int) -> Sequence[str]:
        self.num_asked += 1
        if host == HOST:
            return ["127.0.0.1"]
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def names(request: pytest.FixtureRequest) -> Names:
    return Names(getattr(request, "param", ()))


@pytest.fixture
async def http(
    redis: Redis,
    keys: Keys,
    redis_url: str,
    tmp_path: Path,
    base: BaseModules,
    web: WebServer,
    names: Names,
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a front end whose worker allows `/adapters` of two names of the web server."""
    store = AdapterStore(tmp_path / "store", max_bytes=1 << 30)
    roots = [f"http://{name}:{web.port}/adapters" for name in (HOST, "name.test")]
    check = AddressCheck([HOST], resolve=names)
    reader = source_reader(base, store, roots, check, time_limit_s=TIME_LIMIT_S)

    def is_public_here(address: str) -> bool:
        return address == STAND_IN or is_public(address)

    with patch.object(pinned_connection, "is_public", is_public_here):
        async with front_end(redis, keys, redis_url, reader, store) as client:
            yield client


def placed(text: str, web: WebServer) -> str:
    """Return a URL of an attack on this server."""
    return text.replace("{host}", f"{HOST}:{web.port}").replace("{port}", str(web.port))


def script_of(attack: Attack, files: dict[str, bytes], web: WebServer) -> Script:
    assert attack.script
    script = attack.script(files)

    def run(connection: Any, server: WebServer) -> None:
        script(_Placing(connection, web), server)

    return run


def places(folder: Path) -> list[str]:
    """Return everything that exists where an attack might write."""
    return [*tree(folder), *filter(os.path.lexists, [OUTSIDE, "/etc/cron.d/evil"])]


class _Placing:
    """A connection that sends URLs with the host and port of the server in them."""

    def __init__(self, connection: Any, web: WebServer) -> None:
        self._connection = connection
        self._web = web

    def sendall(self, raw: bytes) -> None:
        is_redirect = raw.startswith(b"HTTP/1.1 30")
        whole = placed(raw.decode(), self._web).encode() if is_redirect else raw
        self._connection.sendall(whole)


@pytest.mark.slow
def test_there_are_two_hundred_attacks() -> None:
    counts = Counter([attack.name for attack in ATTACKS] + [upload.name for upload in UPLOADS])
    assert max(counts.values()) == 1
    assert len(counts) >= 200


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "attack"),
    [(attack.addresses, attack) for attack in ATTACKS],
    ids=[attack.name for attack in ATTACKS],
    indirect=["names"],
)
async def test_an_attack_is_refused_with_its_reason_and_writes_nothing(
    http: httpx.AsyncClient,
    web: WebServer,
    files: dict[str, bytes],
    tmp_path: Path,
    names: Names,
    attack: Attack,
) -> None:
    web.requests.clear()
    web.scripts.clear()
    if attack.script:
        web.scripts["/adapters/x.zip"] = script_of(attack, files, web)
    before = places(tmp_path)
    reply = await http.post(LOAD, json={"lora_name": "evil", "lora_path": placed(attack.url, web)})
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (attack.status, attack.code), error
    assert re.search(attack.reason, error["message"]), error["message"]
    assert error["param"] == "lora_path"
    assert places(tmp_path) == before
    assert {path for _, path in web.requests} <= {"/adapters/x.zip"}
    if attack.addresses:
        assert all(address == STAND_IN for address, _ in web.requests)
        assert names.num_asked == len(attack.addresses)
    assert (await http.get("/v1/adapters/evil")).status_code == 404


@pytest.mark.slow
@pytest.mark.parametrize("upload", UPLOADS, ids=lambda upload: upload.name)
async def test_a_bad_upload_is_refused_with_its_reason_and_writes_nothing(
    http: httpx.AsyncClient, tmp_path: Path, upload: BadUpload
) -> None:
    before = tree(tmp_path)
    query = {"name": "evil", **upload.query}
    if upload.config is not None:
        query["config"] = upload.config
    reply = await http.post("/v1/adapters", params=query, content=upload.body)
    assert 400 <= reply.status_code < 500
    assert re.search(upload.reason, reply.text), reply.text
    assert tree(tmp_path) == before
    assert (await http.get("/v1/adapters/evil")).status_code == 404


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
    return asyncio.create_task(http.post(LOAD, json=body))


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

        await eventually(is_halfway)
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
            assert await asyncio.to_thread(arrived.acquire, timeout=60)
        assert (await load(http, "local", str(good))).status_code == 200
        assert not arrived.acquire(blocking=False), "another adapter is being fetched"
        go.set()
        assert {reply.status_code for reply in await asyncio.gather(*loading)} == {200}
