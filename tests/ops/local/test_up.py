"""How `lorikeet up` waits for its server, and starts its Redis."""

import asyncio
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from threaded_server import running

from ops.local import up
from shared.api_keys import ApiKey

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


async def announced(url: str, *keys: ApiKey) -> list[str]:
    names: list[str] = []
    async with asyncio.timeout(10):
        await up._announce_when_ready(url, keys, names.extend)
    return names


async def test_the_server_is_reached_without_the_proxy(
    server: Starting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert await announced(server.url) == ["base", "pirate"]


@pytest.mark.parametrize(
    "first",
    [(503, b"{}"), (200, b'{"data": []}'), (200, b"")],
    ids=["refused", "none yet", "cut off"],
)
async def test_names_are_requested_until_there_are_some(
    server: Starting, first: tuple[int, bytes]
) -> None:
    server.replies.insert(0, first)
    assert await announced(server.url) == ["base", "pirate"]


async def test_names_are_requested_with_a_key(server: Starting) -> None:
    assert await announced(server.url, ApiKey("red", "r" * 16), ApiKey("blue", "b" * 16))
    assert server.sent_keys == [f"Bearer {'r' * 16}"]


def test_its_redis_uses_the_default_port_if_that_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        usual = free.getsockname()[1]
    monkeypatch.setattr(up, "DEFAULT_REDIS_URL", f"redis://127.0.0.1:{usual}/0")
    first = up.OwnRedis(tmp_path / "first", syncs_always=False)
    try:
        assert first.url == up.DEFAULT_REDIS_URL
        second = up.OwnRedis(tmp_path / "second", syncs_always=False)
        second.stop()
        assert second.url != first.url
    finally:
        first.stop()
