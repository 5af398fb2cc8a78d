"""How `lorikeet up` waits for its server."""

import asyncio
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ops.commands import up as command
from ops.commands.chat import DEFAULT_URL
from ops.local import up
from shared.api_keys import ApiKey
from shared.settings import ApiSettings

MODELS = b'{"data": [{"id": "base"}, {"id": "pirate"}]}'


class Starting(ThreadingHTTPServer):
    """Ready at once; its models are the next of `replies`, the last of them for ever."""

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
    with Starting() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


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
async def test_names_are_asked_for_until_there_are_some(
    server: Starting, first: tuple[int, bytes]
) -> None:
    server.replies.insert(0, first)
    assert await announced(server.url) == ["base", "pirate"]


async def test_names_are_asked_for_with_a_key(server: Starting) -> None:
    assert await announced(server.url, ApiKey("red", "r" * 16), ApiKey("blue", "b" * 16))
    assert server.sent_keys == [f"Bearer {'r' * 16}"]


def test_its_redis_takes_the_usual_port_if_that_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        usual = free.getsockname()[1]
    monkeypatch.setattr(up, "USUAL_REDIS_URL", f"redis://127.0.0.1:{usual}/0")
    first = up.OwnRedis(tmp_path / "first", syncs_always=False)
    try:
        assert first.url == up.USUAL_REDIS_URL
        second = up.OwnRedis(tmp_path / "second", syncs_always=False)
        second.stop()
        assert second.url != first.url
    finally:
        first.stop()


@pytest.mark.parametrize(
    ("url", "redis_url", "expected"),
    [
        (DEFAULT_URL, up.USUAL_REDIS_URL, ["lorikeet chat pirate", "lorikeet queue --watch"]),
        (DEFAULT_URL, None, ["lorikeet chat pirate"]),
        (
            "http://127.0.0.1:1",
            "redis://127.0.0.1:2/0",
            [
                "lorikeet chat pirate --url http://127.0.0.1:1",
                "lorikeet queue --watch --redis-url redis://127.0.0.1:2/0",
            ],
        ),
    ],
)
def test_what_is_printed_when_it_is_ready_can_be_pasted(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    redis_url: str | None,
    expected: list[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["/no/virtual/environment/lorikeet", "up"])
    command._announce(url, ["base", "pirate"], redis_url, has_keys=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "/lorikeet " in line] == [
        f"/no/virtual/environment/{line}" for line in expected
    ]


def test_a_program_on_the_path_is_called_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "lorikeet"
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [str(program), "up"])
    assert command._program() == "lorikeet"
    monkeypatch.setenv("PATH", "")
    assert command._program() == str(program)


def test_no_secret_is_on_a_childs_command_line() -> None:
    given = {
        "host": "::1",
        "redis_url": "redis://:pw@r",
        "api_keys": ["k" * 16],
        "metrics_key": "m" * 16,
    }
    assert command._child_flags(ApiSettings, given) == ["--host", "::1"]


@pytest.mark.parametrize(("host", "shown"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]")])
def test_a_server_on_all_addresses_is_announced_at_one_that_answers(host: str, shown: str) -> None:
    assert command._url(host, 80) == f"http://{shown}:80"
