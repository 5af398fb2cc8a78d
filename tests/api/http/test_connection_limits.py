"""What a connection may take: by sockets that send and read as no client of a library would."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
from api_support import RunningApp, ScriptedWorker, until
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from api.follow.reply_hub import max_events
from api.http import protocol
from api.http.connection_limits import Refusal
from shared.protocol.ids import JobId
from shared.protocol.jobs import JobState
from shared.protocol.results import Choice, FinishReason
from shared.settings import ApiSettings

CHAT = "/v1/chat/completions"
BODY = {"model": "extract", "messages": [{"role": "user", "content": "hi"}]}
STREAM = {**BODY, "stream": True}
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n"
LEFT = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
OK = b'{"status":"ok"}'
TIMEOUT_S = 10.0
SOON_S = 0.2
STOP = FinishReason.STOP


@dataclass
class Client:
    """One connection, by hand."""

    connection: socket.socket

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.connection, data)

    async def receive(self, most: int = 65_536) -> bytes:
        """What is here; empty when the server has closed the connection."""
        async with asyncio.timeout(TIMEOUT_S):
            try:
                return await asyncio.get_running_loop().sock_recv(self.connection, most)
            except ConnectionResetError:
                return b""

    async def until(self, end: bytes) -> bytes:
        """All up to `end`, which must come."""
        data = b""
        while end not in data:
            piece = await self.receive()
            assert piece, data
            data += piece
        return data

    async def rest(self) -> bytes:
        """All until the server closes the connection."""
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
    """A whole request."""
    data = orjson.dumps(body)
    return post_head(f"Content-Length: {len(data)}", *lines) + data


def post_head(*lines: str) -> bytes:
    head = [f"POST {CHAT} HTTP/1.1", "Host: x", "Content-Type: application/json", *lines, "", ""]
    return "\r\n".join(head).encode()


def refusal(response: bytes) -> tuple[int, str]:
    """The status and the code of an error in OpenAI's shape that closes the connection."""
    head, _, body = response.partition(b"\r\n\r\n")
    assert b"\r\nconnection: close" in head
    assert b"\r\nx-request-id: req_" in head
    assert f"\r\ncontent-length: {len(body)}".encode() in head
    error = orjson.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return int(head.split()[1]), error["code"]


def refused(server: RunningApp) -> dict[str, float]:
    """How many connections were refused or cut, by reason."""
    text = server.context.metrics.exposition(None).decode()
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    counts = {
        s.labels["reason"]: s.value for s in samples if s.name == "lorikeet_http_refused_total"
    }
    assert set(counts) == {reason.value for reason in Refusal}
    return {reason: count for reason, count in counts.items() if count}


@pytest.fixture
def changes() -> dict[str, Any]:
    """Settings of one test; its decorator gives them."""
    return {}


@pytest.fixture
def settings(settings: ApiSettings, changes: dict[str, Any]) -> ApiSettings:
    return settings.model_copy(update=changes)


def limited(**changes: Any) -> pytest.MarkDecorator:
    """Runs a test with these settings."""
    return pytest.mark.parametrize("changes", [changes], ids=[""])


def with_headers(num_bytes: int) -> bytes:
    """A request of so many bytes."""
    fill = num_bytes - len(GET) - len(b"X-Fill: \r\n\r\n")
    return GET + b"X-Fill: " + b"a" * fill + b"\r\n\r\n"


async def test_a_response_in_two_parts_does_not_wait_for_an_acknowledgement(
    server: RunningApp,
) -> None:
    async with connected(server) as client:
        await client.send(GET + b"\r\n")
        await client.until(OK)
        (connection,) = server.server.server_state.connections
        option = connection.transport.get_extra_info("socket").getsockopt
        assert option(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@limited(max_header_bytes=2000)
async def test_headers_are_taken_up_to_the_limit_and_refused_above_it(server: RunningApp) -> None:
    async with connected(server) as client:
        for _ in range(2):  # the limit is one of each request
            await client.send(with_headers(2000))
            assert (await client.until(OK)).startswith(b"HTTP/1.1 200")
        await client.send(with_headers(2001))
        assert refusal(await client.rest()) == (431, "headers_too_large")
    assert refused(server) == {"headers_too_large": 1}


@limited(max_header_bytes=2000, api_keys=(SecretStr("red:" + "r" * 20),))
@pytest.mark.parametrize("start", [b"GET /", GET, GET + b"X-Fill: ", b"\r\n"])
async def test_headers_without_an_end_are_refused_however_they_come(
    server: RunningApp, start: bytes
) -> None:
    async with connected(server) as client:
        await client.send(start)
        for _ in range(21):
            await client.send(b"\r\n" * 50 if start == b"\r\n" else b"a" * 100)
        assert refusal(await client.rest()) == (431, "headers_too_large")


@limited(max_header_bytes=2000)
async def test_a_body_may_be_larger_than_headers_may_be(
    server: RunningApp, worker: ScriptedWorker
) -> None:
    body = {**BODY, "messages": [{"role": "user", "content": "x" * 5000}]}
    async with connected(server) as client:
        await client.send(post(body, "Connection: close"))
        await worker.answer(await worker.take())
        assert (await client.rest()).startswith(b"HTTP/1.1 200")


@limited(max_header_bytes=2000)
@pytest.mark.parametrize("part", [b"0\r\nX: ", b"5;x="])
async def test_what_is_in_a_body_beside_its_data_is_bounded_as_well(
    server: RunningApp, part: bytes
) -> None:
    async with connected(server) as client:
        await client.send(post_head("Transfer-Encoding: chunked") + b"1\r\n{\r\n")
        await client.send(part + b"a" * 5000)
        assert refusal(await client.rest()) == (431, "headers_too_large")


@limited(max_header_bytes=1024)
async def test_a_body_in_many_small_chunks_and_trailers_is_taken(
    server: RunningApp, worker: ScriptedWorker
) -> None:
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in orjson.dumps(BODY) + b" " * 1000)
    async with connected(server) as client:
        await client.send(post_head("Transfer-Encoding: chunked", "Connection: close"))
        await client.send(chunks + b"0\r\nX-Trailer: x\r\n\r\n")
        await worker.answer(await worker.take())
        assert (await client.rest()).startswith(b"HTTP/1.1 200")


@limited(header_timeout_s=SOON_S)
async def test_half_a_head_is_given_up_in_time_also_on_a_connection_that_was_used(
    server: RunningApp,
) -> None:
    async with connected(server) as client, connected(server) as used, connected(server) as silent:
        await used.send(GET + b"\r\n")
        await used.until(OK)
        for each in (client, used):
            await each.send(GET)
        for each in (client, used):
            assert refusal(await each.rest()) == (408, "request_timeout")
        assert await silent.rest() == b""
    assert refused(server) == {"header_timeout": 2}


@limited(header_timeout_s=SOON_S, body_timeout_s=60)
async def test_a_body_and_an_answer_may_take_longer_than_headers(
    server: RunningApp, worker: ScriptedWorker
) -> None:
    request = post(BODY, "Connection: close")
    async with connected(server) as client:
        await client.send(request[:-1])
        await asyncio.sleep(1.5 * SOON_S)
        await client.send(request[-1:])
        job = await worker.take()
        await asyncio.sleep(1.5 * SOON_S)
        await worker.answer(job)
        assert (await client.rest()).startswith(b"HTTP/1.1 200")


@limited(body_timeout_s=SOON_S)
async def test_half_a_body_is_given_up_in_time(
    server: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "LINGER_S", 60)
    async with connected(server) as client:
        await client.send(post(BODY)[:-1])
        assert refusal(await client.rest()) == (408, "request_timeout")
        assert refused(server) == {"body_timeout": 1}
        metrics = server.context.metrics
        # The app has seen that its client is gone, although the connection is still here.
        await until(lambda: b'status="499"' in metrics.exposition(None))
        assert len(open_connections(server)) == 1


@limited(body_timeout_s=SOON_S, api_keys=(SecretStr("red:" + "r" * 20),))
async def test_a_body_that_comes_after_its_answer_holds_no_connection(server: RunningApp) -> None:
    async with connected(server) as client, asyncio.TaskGroup() as tasks:
        await client.send(post_head("Content-Length: 9000"))
        assert (await client.until(b"}}")).startswith(b"HTTP/1.1 401")
        dripping = tasks.create_task(drip(client))
        assert await client.rest() == b""
        dripping.cancel()
    assert refused(server) == {"body_timeout": 1}


async def drip(client: Client) -> None:
    while True:
        await asyncio.sleep(SOON_S / 10)
        try:
            await client.send(b"x")
        except OSError:
            return


@limited(api_keys=(SecretStr("red:" + "r" * 20),))
async def test_a_connection_serves_on_when_a_body_came_after_its_answer(
    server: RunningApp,
) -> None:
    async with connected(server) as client:
        await client.send(post_head("Content-Length: 9"))
        assert (await client.until(b"}}")).startswith(b"HTTP/1.1 401")
        await client.send(b"x" * 9)
        await client.send(GET + b"\r\n")
        await client.until(OK)
        await client.send(post_head("Content-Length: 9"))
        await client.until(b"}}")
        (connection,) = open_connections(server)
        await client.send(b"x" * 9 + GET)  # the end of a body, and half a head
        await until(lambda: connection._phase is protocol.Phase.HEAD)
        await client.send(b"\r\n")
        await client.until(OK)
        await client.send(post_head("Content-Length: 9"))
        await client.until(b"}}")
        await client.send(b"x" * 9)
        await until(lambda: connection._phase is protocol.Phase.IDLE)
        assert connection.timeout_keep_alive_task is not None


def open_connections(server: RunningApp) -> list[protocol.LimitedProtocol]:
    connections: set[Any] = server.server.server_state.connections
    return list(connections)


@limited(max_connections=2)
async def test_a_connection_too_many_is_refused_until_another_one_ends(server: RunningApp) -> None:
    async with connected(server) as first:
        await first.send(GET + b"\r\n")
        await first.until(OK)
        async with connected(server) as second:
            await second.send(GET + b"\r\n")
            await second.until(OK)
            async with connected(server) as third:
                await third.send(GET + b"\r\n")
                response = await third.rest()
            assert refusal(response) == (503, "too_many_connections")
            assert b"\r\nretry-after: 2\r\n" in response
            await first.send(GET + b"\r\n")
            await first.until(OK)
        await until(lambda: len(open_connections(server)) == 1)
        async with connected(server) as fourth:
            await fourth.send(LEFT)
            assert (await fourth.rest()).endswith(OK)
    assert refused(server) == {"too_many_connections": 1}


@limited(max_connections=1)
async def test_of_many_connections_too_many_the_last_are_cut_at_once(server: RunningApp) -> None:
    async with connected(server), connected(server) as second, connected(server) as third:
        assert await third.rest() == b""
        assert refusal(await second.rest()) == (503, "too_many_connections")


@limited(send_timeout_s=SOON_S)
async def test_a_client_that_reads_nothing_is_cut_off_and_its_job_cancelled(
    server: RunningApp, worker: ScriptedWorker
) -> None:
    async with connected(server, receive_buffer_bytes=4096) as client:
        await client.send(post(STREAM))
        job = await worker.take()
        await worker.admit(job)
        cut = asyncio.create_task(worker.mail())
        index = 0
        while not cut.done():
            await worker.tokens(job, index, (7,), "x" * 20_000, checkpoint=True)
            index += 1
        assert (cut.result().kind, cut.result().job) == ("cancel", job.job.id)
        assert refused(server) == {"slow_reader": 1}
        await until(lambda: not server.context.replies._inboxes)


@limited(send_timeout_s=2 * SOON_S)
async def test_a_client_that_reads_slowly_gets_all_of_a_large_answer(
    server: RunningApp, worker: ScriptedWorker
) -> None:
    text = "x" * 2_200_000
    async with connected(server, receive_buffer_bytes=65_536) as client:
        await client.send(post(BODY, "Connection: close"))
        job = await worker.take()
        await worker.finish(job, Choice(text=text, finish=STOP, ids=(1,)))
        data, start = b"", asyncio.get_running_loop().time()
        while piece := await client.receive():
            data += piece
            await asyncio.sleep(SOON_S / 10)
        assert asyncio.get_running_loop().time() - start > 3 * SOON_S
    assert orjson.loads(data.partition(b"\r\n\r\n")[2])["choices"][0]["message"]["content"] == text
    assert refused(server) == {}


async def test_a_client_that_pauses_gets_every_token_once_out_of_bounded_memory(
    server: RunningApp, worker: ScriptedWorker
) -> None:
    async with connected(server, receive_buffer_bytes=4096) as client:
        await client.send(post(STREAM, "Connection: close"))
        job = await worker.take()
        await worker.admit(job)
        words = [f"{index} " * 500 for index in range(250)]
        for index, word in enumerate(words):
            finish = STOP if word is words[-1] else None
            await worker.tokens(job, index, (index,), word, finish, checkpoint=True)
        inbox = server.context.replies._inboxes[JobId(job.job.id)]
        await until(lambda: bool(inbox._newest) and inbox._newest[0].index == len(words) - 1)
        assert len(inbox._events) == max_events(1)
        (connection,) = open_connections(server)
        assert 0 < connection.transport.get_write_buffer_size() < 65_536
        reading = asyncio.create_task(client.rest())
        await until(lambda: not inbox._events)
        await worker.finish(job, Choice(text="".join(words), finish=STOP, ids=tuple(range(250))))
        assert streamed_text(await reading) == "".join(words)


def streamed_text(response: bytes) -> str:
    """The text of a chunked stream of one choice."""
    body = unchunked(response.partition(b"\r\n\r\n")[2])
    events = [line.removeprefix(b"data: ") for line in body.split(b"\n\n") if line[:6] == b"data: "]
    assert events.pop() == b"[DONE]"
    deltas = [orjson.loads(event)["choices"][0]["delta"] for event in events]
    return "".join(delta.get("content", "") for delta in deltas)


def unchunked(body: bytes) -> bytes:
    parts = []
    while body:
        size, _, body = body.partition(b"\r\n")
        parts.append(body[: int(size, 16)])
        body = body[int(size, 16) + 2 :]
    return b"".join(parts)


@pytest.mark.parametrize("is_one_piece", [True, False])
async def test_a_request_ahead_of_its_turn_isnt_taken_and_the_running_one_ends_well(
    server: RunningApp, worker: ScriptedWorker, is_one_piece: bool
) -> None:
    async with connected(server) as client:
        first, second = post(STREAM), post(BODY)
        await client.send(first + second if is_one_piece else first)
        job = await worker.take()
        if not is_one_piece:
            await client.send(second)
            (connection,) = open_connections(server)
            await until(lambda: connection._phase is protocol.Phase.DEAF)
        await worker.answer(job, "hello")
        assert streamed_text(await client.rest()) == "hello"
    counts = await server.context.queue.counts()
    assert counts.waiting == 0
    assert counts.totals[JobState.DONE] == 1


async def test_a_client_that_sent_a_request_ahead_and_leaves_cancels_the_running_one(
    server: RunningApp, worker: ScriptedWorker
) -> None:
    async with connected(server) as client:
        await client.send(post(STREAM) + post(BODY))
        job = await worker.take()
    mail = await worker.mail()
    assert (mail.kind, mail.job) == ("cancel", job.job.id)


@limited(header_timeout_s=SOON_S)
async def test_what_comes_behind_a_last_request_is_dropped(
    server: RunningApp, worker: ScriptedWorker
) -> None:
    async with connected(server) as client:
        await client.send(post(STREAM, "Connection: close"))
        job = await worker.take()
        await client.send(b"more")
        await asyncio.sleep(1.5 * SOON_S)
        await worker.answer(job, "hello")
        assert streamed_text(await client.rest()) == "hello"


async def test_empty_lines_after_a_body_are_overlooked(
    server: RunningApp, worker: ScriptedWorker
) -> None:
    async with connected(server) as client:
        for _ in range(2):
            await client.send(post(BODY) + b"\r\n")
            job = await worker.take()
            await client.send(b"\r\n")
            await worker.answer(job)
            await client.until(b"}]")
        await client.send(b"\r\n" + LEFT)
        assert (await client.rest()).endswith(OK)


async def test_what_isnt_http_is_a_400_in_openais_shape_and_holds_no_connection(
    server: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "LINGER_S", SOON_S)
    async with connected(server) as client:
        await client.send(b"hello\r\n\r\n")
        assert refusal(await client.rest()) == (400, "invalid_value")
        await until(lambda: not open_connections(server))
    assert refused(server) == {"malformed": 1}


async def test_what_isnt_http_in_a_body_is_a_400_and_its_app_is_left_alone(
    server: RunningApp,
) -> None:
    async with connected(server) as client:
        head = post_head("Transfer-Encoding: chunked", "Expect: 100-continue")
        await client.send(head + b"hello\r\n")
        assert refusal(await client.rest()) == (400, "invalid_value")
        metrics = server.context.metrics
        await until(lambda: f'endpoint="{CHAT}",status="499"'.encode() in metrics.exposition(None))


@pytest.mark.parametrize("is_one_piece", [True, False])
@pytest.mark.parametrize("more", [b"hello\r\n\r\n", b"\r\n" * 5000])
@limited(max_header_bytes=2000)
async def test_what_comes_behind_a_request_leaves_its_answer_whole(
    server: RunningApp, worker: ScriptedWorker, more: bytes, is_one_piece: bool
) -> None:
    async with connected(server) as client:
        await client.send(post(STREAM) + (more if is_one_piece else b""))
        job = await worker.take()
        await worker.admit(job)
        await client.until(b"\r\n\r\n")
        await client.send(more)
        await worker.answer(job, "hello")
        body = (await client.until(b"0\r\n\r\n")).rpartition(b"\r\n\r\n")[0]
        assert body.endswith(b"[DONE]\n\n\r\n0")
        assert refused(server) == {}


async def test_an_offer_to_upgrade_is_passed_over(server: RunningApp) -> None:
    offer = "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"
    async with connected(server) as client:
        await client.send(GET + "\r\n".join([*offer, "", ""]).encode())
        await client.until(OK)
        await client.send(LEFT)
        assert (await client.rest()).endswith(OK)


async def test_a_client_that_asks_before_it_sends_a_body_is_told_to_go_on(
    server: RunningApp, worker: ScriptedWorker
) -> None:
    head, body = post(BODY, "Expect: 100-continue", "Connection: close").split(b"\r\n\r\n")
    async with connected(server) as client:
        await client.send(head + b"\r\n\r\n")
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(body)
        await worker.answer(await worker.take())
        assert (await client.rest()).startswith(b"HTTP/1.1 200")
