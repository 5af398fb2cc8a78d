"""The load of the measurements: its HTTP client, received streams, and the closed loop."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import orjson

from ops.lab.bench.streams.http_client import HttpClient
from ops.lab.bench.streams.received_stream import ReceivedStream
from ops.lab.bench.streams.stream_load import StreamLoad

HEAD = b"HTTP/1.1 200 OK\r\nX-Lorikeet-Job: j1\r\nTransfer-Encoding: chunked\r\n\r\n"


def event(text: str) -> bytes:
    return b"id: 1\ndata: " + orjson.dumps({"choices": [{"text": text}]}) + b"\n\n"


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b""))


@dataclass
class Server:
    """Answers each request of its connections with `reply`."""

    reply: bytes
    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    num_connections: int = 0
    has_closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        with suppress(asyncio.IncompleteReadError):  # at the end of the connection
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.heads.append(head)
                length = int(head.lower().partition(b"content-length: ")[2].split()[0])
                self.bodies.append(await reader.readexactly(length))
                writer.write(self.reply)
        writer.close()
        await writer.wait_closed()
        self.has_closed.set()


@asynccontextmanager
async def serving(reply: bytes) -> AsyncIterator[Server]:
    server = Server(reply)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listener:
        server.port = listener.sockets[0].getsockname()[1]
        yield server
        await server.has_closed.wait()


async def test_streams_are_read_to_their_end_over_one_connection() -> None:
    reply = HEAD + chunked(event("0" * 8), event("1" * 8) + event("2" * 8))
    async with serving(reply) as server:
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


def test_each_token_of_a_chunk_has_its_arrival_time() -> None:
    counted: list[int] = []
    received = ReceivedStream(on_tokens=lambda _, num_new: counted.append(num_new))
    received.begin(200, "job")
    received.receive(b": keep-alive\n\n")
    received.receive(event("00000000") + event("1111111122222222"))
    received.receive(event("") + b"data: [DONE]\n\n")
    assert (counted, len(received.token_s), received.error) == ([3], 3, None)
    assert received.first_token_s >= 0


def test_an_error_within_a_stream_is_kept() -> None:
    received = ReceivedStream()
    received.begin(200, "job")
    received.receive(b'data: {"error": {"code": "internal"}}\n\n')
    assert received.error == "{'code': 'internal'}"


class Echo:
    """Sends at once as many tokens as requested, or fewer."""

    def __init__(self, missing: int = 0) -> None:
        self.tokens: list[int] = []
        self.models: Counter[str] = Counter()
        self.open = 0
        self._missing = missing
        self._has_sent = asyncio.Event()

    async def until_sent(self, num_jobs: int) -> None:
        """Wait until this number of answers have been sent."""
        while len(self.tokens) < num_jobs:
            self._has_sent.clear()
            await self._has_sent.wait()

    async def send(self, body: bytes, received: ReceivedStream) -> None:
        self.open += 1
        request = orjson.loads(body)
        self.models[request["model"]] += 1
        self.tokens.append(request["max_tokens"])
        received.begin(200, f"job-{len(self.tokens)}")
        await asyncio.sleep(0)
        received.receive(event("0" * 8 * (request["max_tokens"] - self._missing)))
        self.open -= 1
        self._has_sent.set()


async def test_a_load_ends_with_whole_answers() -> None:
    echo = Echo()
    load = StreamLoad(echo.send, ["a", "b"], 6)
    load.start(2)
    await echo.until_sent(300)
    await load.drain()
    assert echo.open == 0
    assert load.totals.jobs == len(echo.tokens) == len(load.totals.first_token_s)
    assert load.totals.tokens == sum(echo.tokens)
    assert set(echo.tokens[2:]) == {6}  # the first job of a stream may be shorter
    assert load.totals.errors == []
    assert echo.models["a"] / max(1, echo.models["b"]) > 1.2  # Zipf's law


async def test_an_incomplete_answer_is_an_error() -> None:
    echo = Echo(missing=1)
    load = StreamLoad(echo.send, ["a"], 4)
    load.start(1)
    await echo.until_sent(20)
    await load.drain()
    assert load.totals.jobs == 0
    assert load.totals.errors[-1] == "4 tokens requested, 3 received"
