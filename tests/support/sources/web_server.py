"""A real HTTP server that serves what a test scripts, byte for byte."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

Script = Callable[[socket.socket, "WebServer"], None]
"""Answers one request on its connection."""


def response(
    body: bytes, status: str = "200 OK", headers: str = "", *, length: int | None = None
) -> bytes:
    """Return a whole response. `length` is the stated length of the body."""
    size = len(body) if length is None else length
    head = f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\nConnection: close\r\n{headers}\r\n"
    return head.encode() + body


def sends(raw: bytes) -> Script:
    """Return a script that sends bytes and closes the connection."""

    def script(connection: socket.socket, server: "WebServer") -> None:
        connection.sendall(raw)

    return script


def redirects(location: str, status: int = 302) -> Script:
    return sends(response(b"", f"{status} Moved", f"Location: {location}\r\n"))


def drips(raw: bytes, pause_s: float = 0.05) -> Script:
    """Return a script that sends one byte after another, until the test is over."""

    def script(connection: socket.socket, server: "WebServer") -> None:
        for byte in raw:
            connection.sendall(bytes([byte]))
            if server.is_over.wait(pause_s):
                return

    return script


def floods(head: bytes, piece: bytes) -> Script:
    """Return a script that sends `head`, and then `piece` without end."""

    def script(connection: socket.socket, server: "WebServer") -> None:
        connection.sendall(head)
        while not server.is_over.is_set():
            connection.sendall(piece)

    return script


@dataclass
class WebServer:
    """The server, and the requests that it has got."""

    port: int
    scripts: dict[str, Script] = field(default_factory=dict)
    """Answers by path."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Address at which each request arrived, and its path."""
    is_over: threading.Event = field(default_factory=threading.Event)

    def serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(20)
            head = b""
            while b"\r\n\r\n" not in head:
                if not (piece := connection.recv(4096)):
                    return
                head += piece
            path = head.split(b" ", 2)[1].decode()
            self.requests.append((connection.getsockname()[0], path))
            script = self.scripts.get(path.partition("?")[0])
            (script or sends(response(b"", "404 Not Found")))(connection, self)


@contextmanager
def web_server(tls: ssl.SSLContext | None = None) -> Iterator[WebServer]:
    """Run a server on all addresses of this machine, at a free port."""
    listener = socket.create_server(("0.0.0.0", 0), backlog=128)
    server = WebServer(listener.getsockname()[1])

    def handle(connection: socket.socket) -> None:
        with suppress(OSError):
            server.serve(tls.wrap_socket(connection, server_side=True) if tls else connection)
            connection.close()

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=handle, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.is_over.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
