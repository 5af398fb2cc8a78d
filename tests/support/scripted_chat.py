"""HTTP server that answers chat requests from a script."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

MODELS = ("base", "pirate")


class ScriptedChat(ThreadingHTTPServer):
    """Server that answers every chat with `MODEL heard N messages`.

    The last message can ask for something else: `add` the models that are missing, `refuse` the
    request, `fail` within the answer,
    `break` off the connection, `end` the stream early, or `hang` after the first word until the
    client disconnects.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.wants_key = False
        self.models = MODELS
        self.client_left = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"


@contextmanager
def scripted_chat() -> Iterator[ScriptedChat]:
    """Run a server in a thread."""
    with ScriptedChat() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: ScriptedChat

    def do_GET(self) -> None:
        self.server.keys.append(self.headers["Authorization"])
        if self.server.wants_key:
            self._reply(401, orjson.dumps({"error": {"message": "an API key is needed"}}))
            return
        self._reply(200, orjson.dumps({"data": [{"id": name} for name in self.server.models]}))

    def do_POST(self) -> None:
        request = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(request)
        order = request["messages"][-1]["content"]
        words = [f"{request['model']} ", f"heard {len(request['messages'])} ", "messages"]
        chunks = [_chunk({"role": "assistant"}), *(_chunk({"content": word}) for word in words)]
        match order:
            case "add":
                self.server.models = MODELS
                self._reply(200, _events(*chunks, {"choices": []}) + b"data: [DONE]\n\n")
            case "refuse":
                self._reply(429, orjson.dumps({"error": {"message": "the queue is full"}}))
            case "fail":
                self._reply(200, _events(*chunks[:2], {"error": {"message": "it was cancelled"}}))
            case "break":
                self._reply(200, _events(*chunks[:2]), missing=1000)
            case "end":
                self._reply(200, _events(*chunks[:2]))
            case "hang":
                self._reply(200, _events(*chunks[:2]), missing=1000)
                self.rfile.read(1)  # returns when the client closes its connection
                self.server.client_left.set()
            case _:
                self._reply(200, _events(*chunks, {"choices": []}) + b": ping\n\ndata: [DONE]\n\n")

    def _reply(self, status: int, body: bytes, *, missing: int = 0) -> None:
        """Send a response. `missing` bytes of its announced length are never sent."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) + missing))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _chunk(delta: dict[str, str]) -> dict[str, Any]:
    return {"choices": [{"delta": delta}]}


def _events(*chunks: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks)
