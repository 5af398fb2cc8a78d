"""The HTTP client of the measurements."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from ops.lab.bench.streams.http_client import HttpClient
from ops.lab.bench.streams.received_stream import ReceivedStream

STREAM = b"HTTP/1.1 200 OK\r\nX-Lorikeet-Job: j1\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices": [{"text": "00000000"}]}\n\n'


@dataclass
class Server:
    """Answers each request with `reply`."""

    reply: bytes
    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    num_connections: int = 0
    has_closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        while head := await _head(reader):
            self.heads.append(head)
            length = int(head.lower().partition(b"content-length: ")[2].split()[0])
            self.bodies.append(await reader.readexactly(length))
            writer.write(self.reply)
        writer.close()
        await writer.wait_closed()
        self.has_closed.set()


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


@asynccontextmanager
async def serving(reply: bytes) -> AsyncIterator[Server]:
    server = Server(reply)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listener:
        server.port = listener.sockets[0].getsockname()[1]
        yield server
        await server.has_closed.wait()


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b""))


async def test_streams_are_read_to_their_end_over_one_connection() -> None:
    async with serving(STREAM + chunked(EVENT, EVENT + EVENT)) as server:
        client = HttpClient(server.port, api_key="secret")
        for body in (b"{}", b'{"n": 1}'):
            received = ReceivedStream()
            await client.send(body, received)
            assert (received.status, received.job) == (200, "j1")
            assert len(received.token_s) == 3
        await client.close()
    assert server.bodies == [b"{}", b'{"n": 1}']
    assert server.num_connections == 1
    assert b"\r\nAuthorization: Bearer secret\r\n" in server.heads[0]


async def test_a_refusal_becomes_the_error_of_the_answer() -> None:
    reply = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 4\r\n\r\nfull"
    async with serving(reply) as server:
        client, received = HttpClient(server.port), ReceivedStream()
        await client.send(b"{}", received)
        await client.close()
    assert received.error == "HTTP 429: full"
