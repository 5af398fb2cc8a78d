"""HTTP over plain sockets, for requests that no client library would send."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
from api_support import RunningApp, metric_samples
from sse_events import sse_events

from api.http import protocol
from api.http.connection_limits import Refusal
from api.metrics.metrics import Metrics

CHAT = "/v1/chat/completions"
BODY = {"model": "extract", "messages": [{"role": "user", "content": "hi"}]}
STREAM = {**BODY, "stream": True}
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n"
OK = b'{"status":"ok"}'
TIMEOUT_S = 60.0
SOON_S = 0.2


@dataclass
class Client:
    """One connection that sends and receives bytes."""

    connection: socket.socket

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.connection, data)

    async def receive(self, most: int = 65_536) -> bytes:
        """Return received bytes, or an empty value after the server has closed the connection."""
        async with asyncio.timeout(TIMEOUT_S):
            try:
                return await asyncio.get_running_loop().sock_recv(self.connection, most)
            except ConnectionResetError:
                return b""

    async def until(self, end: bytes) -> bytes:
        """Return all bytes until `end` was received. Fails if the connection closes before."""
        data = b""
        while end not in data:
            piece = await self.receive()
            assert piece, data
            data += piece
        return data

    async def get(self) -> None:
        """Request `/health` and wait for the response."""
        await self.send(GET + b"\r\n")
        await self.until(OK)

    async def last_get(self, before: bytes = b"") -> None:
        """Send `before` and a last request for `/health`; wait until the server has closed."""
        await self.send(before + GET + b"Connection: close\r\n\r\n")
        assert (await self.rest()).endswith(OK)

    async def rest(self) -> bytes:
        """Return all bytes until the server closes the connection."""
        pieces = []
        while piece := await self.receive():
            pieces.append(piece)
        return b"".join(pieces)


@asynccontextmanager
async def connected(
    server: RunningApp, receive_buffer_bytes: int | None = None
) -> AsyncIterator[Client]:
    url = urlsplit(server.url)
    with socket.socket() as connection:
        if receive_buffer_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, (url.hostname, url.port))
        yield Client(connection)


def post(body: dict[str, Any], *lines: str) -> bytes:
    data = orjson.dumps(body)
    return post_head(f"Content-Length: {len(data)}", *lines) + data


def post_head(*lines: str) -> bytes:
    head = [f"POST {CHAT} HTTP/1.1", "Host: x", "Content-Type: application/json", *lines, "", ""]
    return "\r\n".join(head).encode()


def refusal(response: bytes) -> tuple[int, str]:
    """Return status and code of an error response in OpenAI's format that closes the connection."""
    head, _, body = response.partition(b"\r\n\r\n")
    assert b"\r\nconnection: close" in head
    assert b"\r\nx-request-id: req_" in head
    assert f"\r\ncontent-length: {len(body)}".encode() in head
    error = orjson.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return int(head.split()[1]), error["code"]


def refused(server: RunningApp) -> dict[str, float]:
    """Return how many connections were refused or closed early, by reason."""
    samples = metric_samples(server.pool.part(Metrics))
    counts = {key[1]: n for key, n in samples.items() if key[0] == "lorikeet_http_refused_total"}
    assert set(counts) == {reason.value for reason in Refusal}
    return {reason: count for reason, count in counts.items() if count}


def with_settings(**changes: Any) -> pytest.MarkDecorator:
    """Return a decorator that runs a test with these settings."""
    return pytest.mark.parametrize("changes", [changes], ids=[""])


def with_headers(num_bytes: int) -> bytes:
    """Return a request whose head has `num_bytes` bytes."""
    fill = num_bytes - len(GET) - len(b"X-Fill: \r\n\r\n")
    return GET + b"X-Fill: " + b"a" * fill + b"\r\n\r\n"


async def drip(client: Client) -> None:
    """Send one byte at a time until the connection closes."""
    while True:
        await asyncio.sleep(SOON_S / 10)
        try:
            await client.send(b"x")
        except OSError:
            return


def open_connections(server: RunningApp) -> list[protocol.LimitedProtocol]:
    connections: set[Any] = server.server.server_state.connections
    return list(connections)


def streamed_text(response: bytes) -> str:
    """Return the text of a chunked stream with one choice."""
    body = unchunked(response.partition(b"\r\n\r\n")[2])
    *events, done = sse_events(body.decode())
    assert done.data == "[DONE]"
    deltas = [event.json["choices"][0]["delta"] for event in events]
    return "".join(delta.get("content", "") for delta in deltas)


def unchunked(body: bytes) -> bytes:
    parts = []
    while body:
        size, _, body = body.partition(b"\r\n")
        parts.append(body[: int(size, 16)])
        body = body[int(size, 16) + 2 :]
    return b"".join(parts)
