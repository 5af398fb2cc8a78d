"""Runs HTTP servers of the standard library in threads."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, TypeVar


class LocalServer(ThreadingHTTPServer):
    """Server on a free port of this machine."""

    def __init__(self, handler: Callable[..., BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server_port}"


def reply(
    handler: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    headers: Mapping[str, str],
    *,
    missing: int = 0,
) -> None:
    """Send a reply, without its body if the request is a HEAD.

    `missing` bytes of the announced length are never sent.
    """
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body) + missing), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


class QuietHandler(BaseHTTPRequestHandler):
    """Reads bodies, answers with JSON, and logs nothing."""

    def read_body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def reply(self, status: int, content: Any = b"", *, missing: int = 0) -> None:
        """Answer with bytes, or with anything else as JSON, as `reply` does."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        reply(self, status, data, {}, missing=missing)

    def log_message(self, *_: object) -> None:
        pass


S = TypeVar("S", bound=ThreadingHTTPServer)


@contextmanager
def running(server: S) -> Iterator[S]:
    """Serve in a thread during the block, and close the server afterwards."""
    with server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
