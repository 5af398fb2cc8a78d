"""`lorikeet chat` against a scripted server."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from ops import cli
from ops.commands.chat import ServerError


class Scripted(ThreadingHTTPServer):
    """Answers every message with `You said N messages`, and refuses the model `none`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, Any]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Scripted

    def do_GET(self) -> None:
        self.reply(200, orjson.dumps({"data": [{"id": "base"}, {"id": "pirate"}]}))

    def do_POST(self) -> None:
        request = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(request)
        if request["model"] == "none":
            return self.reply(404, orjson.dumps({"error": {"message": "no model none"}}))
        pieces = ["You said ", str(len(request["messages"])), " messages"]
        chunks = [{"choices": [{"delta": {"content": piece}}]} for piece in pieces]
        chunks = [{"choices": [{"delta": {"role": "assistant"}}]}, *chunks, {"choices": []}]
        lines = [b"data: " + orjson.dumps(chunk) for chunk in chunks]
        return self.reply(200, b"\n\n".join([*lines, b": ping", b"data: [DONE]", b""]))

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def chat(*words: str, typed: str) -> str:
    result = CliRunner().invoke(cli.app, ["chat", *words], input=typed)
    if result.exception:
        raise result.exception
    return result.output


def test_the_conversation_so_far_goes_along(server: Scripted) -> None:
    shown = chat("pirate", "--url", server.url, typed="hi\nand now?\n")
    assert "You said 1 messages" in shown
    assert "You said 3 messages" in shown
    assert [m["content"] for m in server.requests[1]["messages"]] == [
        *("hi", "You said 1 messages", "and now?")
    ]
    assert server.requests[1]["model"] == "pirate"


def test_the_base_model_is_the_default(server: Scripted) -> None:
    chat("--url", server.url, typed="hi\n\n")
    assert server.requests[0]["model"] == "base"


def test_the_servers_reason_is_the_error(server: Scripted) -> None:
    with pytest.raises(ServerError, match="no model none"):
        chat("none", "--url", server.url, typed="hi\n")


def test_no_server_is_one_clear_error(server: Scripted) -> None:
    url = server.url
    server.server_close()
    with pytest.raises(ServerError, match=f"no answer from {url}.*`lorikeet up` starts a server"):
        chat("--url", url, typed="hi\n")


def test_a_server_on_this_machine_is_reached_without_the_proxy(
    server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert "You said 1 messages" in chat("--url", server.url, typed="hi\n")
