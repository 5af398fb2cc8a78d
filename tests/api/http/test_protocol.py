"""The HTTP protocol of connections: their limits, pipelining, malformed bytes and slow clients."""

import asyncio
import socket
from collections.abc import AsyncIterator

import orjson
import pytest
from api_support import RunningApp, ScriptedWorker, until
from pydantic import SecretStr
from raw_client import (
    BODY,
    CHAT,
    GET,
    OK,
    SOON_S,
    STREAM,
    Client,
    connected,
    drip,
    open_connections,
    post,
    post_head,
    refusal,
    refused,
    streamed_text,
    with_headers,
    with_settings,
)

from api.follow.reply_hub import ReplyHub, max_events
from api.http import protocol
from api.metrics.metrics import Metrics
from shared.protocol.ids import JobId
from shared.protocol.jobs import JobState
from shared.protocol.results import Choice, FinishReason


@pytest.fixture
async def client(server: RunningApp) -> AsyncIterator[Client]:
    """One connection."""
    async with connected(server) as client:
        yield client


async def test_a_response_in_two_parts_does_not_wait_for_an_acknowledgement(
    server: RunningApp, client: Client
) -> None:
    await client.get()
    (connection,) = server.server.server_state.connections
    option = connection.transport.get_extra_info("socket").getsockopt
    assert option(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@with_settings(api_keys=(SecretStr("red:" + "r" * 20),))
async def test_a_connection_continues_after_a_body_that_arrived_after_its_answer(
    server: RunningApp, client: Client
) -> None:
    await client.send(post_head("Content-Length: 9"))
    assert (await client.until(b"}}")).startswith(b"HTTP/1.1 401")
    await client.send(b"x" * 9)
    await client.get()
    await client.send(post_head("Content-Length: 9"))
    await client.until(b"}}")
    (connection,) = open_connections(server)
    await client.send(b"x" * 9 + GET)  # the end of a body, and an incomplete head
    await until(lambda: connection._phase is protocol.Phase.HEAD)
    await client.send(b"\r\n")
    await client.until(OK)
    await client.send(post_head("Content-Length: 9"))
    await client.until(b"}}")
    await client.send(b"x" * 9)
    await until(lambda: connection._phase is protocol.Phase.IDLE)
    assert connection.timeout_keep_alive_task is not None


async def test_a_client_that_pauses_gets_every_token_once_from_bounded_memory(
    server: RunningApp, worker: ScriptedWorker
) -> None:
    async with connected(server, receive_buffer_bytes=4096) as client:
        await client.send(post(STREAM, "Connection: close"))
        job = await worker.take()
        await worker.admit(job)
        words = [f"{index} " * 500 for index in range(250)]
        for index, word in enumerate(words):
            finish = FinishReason.STOP if word is words[-1] else None
            await worker.tokens(job, index, (index,), word, finish, checkpoint=True)
        (inbox,) = server.pool.part(ReplyHub)._inboxes[JobId(job.job.id)]
        await until(lambda: bool(inbox._newest) and inbox._newest[0].index == len(words) - 1)
        assert len(inbox._events) == max_events(1)
        (connection,) = open_connections(server)
        assert 0 < connection.transport.get_write_buffer_size() < 65_536
        reading = asyncio.create_task(client.rest())
        await until(lambda: not inbox._events)
        await worker.finish(
            job, Choice(text="".join(words), finish=FinishReason.STOP, ids=tuple(range(250)))
        )
        assert streamed_text(await reading) == "".join(words)


@pytest.mark.parametrize("is_one_piece", [True, False])
async def test_a_pipelined_request_is_discarded_and_the_running_one_is_answered(
    server: RunningApp, worker: ScriptedWorker, client: Client, is_one_piece: bool
) -> None:
    first, second = post(STREAM), post(BODY)
    await client.send(first + second if is_one_piece else first)
    job = await worker.take()
    if not is_one_piece:
        await client.send(second)
        (connection,) = open_connections(server)
        await until(lambda: connection._phase is protocol.Phase.CLOSING)
    await worker.answer(job, "hello")
    assert streamed_text(await client.rest()) == "hello"
    counts = await server.pool.views.counts()
    assert counts.waiting == 0
    assert counts.totals[JobState.DONE] == 1


@with_settings(disconnect_grace_s=0)
async def test_disconnecting_after_a_pipelined_request_cancels_the_running_job(
    server: RunningApp, worker: ScriptedWorker
) -> None:
    async with connected(server) as client:
        await client.send(post(STREAM) + post(BODY))
        job = await worker.take()
    mail = await worker.mail()
    assert (mail.kind, mail.job) == ("cancel", job.job.id)


@with_settings(header_timeout_s=SOON_S)
async def test_bytes_after_the_last_request_are_discarded(
    worker: ScriptedWorker, client: Client
) -> None:
    await client.send(post(STREAM, "Connection: close"))
    job = await worker.take()
    await client.send(b"more")
    await asyncio.sleep(1.5 * SOON_S)
    await worker.answer(job, "hello")
    assert streamed_text(await client.rest()) == "hello"


async def test_empty_lines_after_a_body_are_ignored(worker: ScriptedWorker, client: Client) -> None:
    for _ in range(2):
        await client.send(post(BODY) + b"\r\n")
        job = await worker.take()
        await client.send(b"\r\n")
        await worker.answer(job)
        await client.until(b"}]")
    await client.last_get(b"\r\n")


async def test_bytes_that_are_not_http_get_a_400_in_openais_format_and_are_disconnected(
    server: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "LINGER_S", SOON_S)
    async with connected(server) as client:
        await client.send(b"hello\r\n\r\n")
        assert refusal(await client.rest()) == (400, "invalid_value")
        await until(lambda: not open_connections(server))
    assert refused(server) == {"malformed": 1}


async def test_a_malformed_body_is_a_400_and_disconnects_the_app(
    server: RunningApp, client: Client
) -> None:
    head = post_head("Transfer-Encoding: chunked", "Expect: 100-continue")
    await client.send(head + b"hello\r\n")
    assert refusal(await client.rest()) == (400, "invalid_value")
    metrics = server.pool.part(Metrics)
    await until(lambda: f'endpoint="{CHAT}",status="499"'.encode() in metrics.exposition(None))


@pytest.mark.parametrize("is_one_piece", [True, False])
@pytest.mark.parametrize("more", [b"hello\r\n\r\n", b"\r\n" * 5000])
@with_settings(max_header_bytes=2000)
async def test_bytes_after_a_request_do_not_affect_its_answer(
    server: RunningApp, worker: ScriptedWorker, client: Client, more: bytes, is_one_piece: bool
) -> None:
    await client.send(post(STREAM) + (more if is_one_piece else b""))
    job = await worker.take()
    await worker.admit(job)
    await client.until(b"\r\n\r\n")
    await client.send(more)
    await worker.answer(job, "hello")
    body = (await client.until(b"0\r\n\r\n")).rpartition(b"\r\n\r\n")[0]
    assert body.endswith(b"[DONE]\n\n\r\n0")
    assert refused(server) == {}


async def test_an_upgrade_offer_is_ignored(client: Client) -> None:
    offer = "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"
    await client.send(GET + "\r\n".join([*offer, "", ""]).encode())
    await client.until(OK)
    await client.last_get()


async def test_a_request_with_expect_100_continue_gets_a_100_response(
    worker: ScriptedWorker, client: Client
) -> None:
    head, body = post(BODY, "Expect: 100-continue", "Connection: close").split(b"\r\n\r\n")
    await client.send(head + b"\r\n\r\n")
    assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    await client.send(body)
    await worker.answer(await worker.take())
    assert (await client.rest()).startswith(b"HTTP/1.1 200")


@with_settings(max_header_bytes=2000)
async def test_headers_are_accepted_up_to_the_limit_and_refused_above_it(
    server: RunningApp, client: Client
) -> None:
    for _ in range(2):  # the limit applies to each request separately
        await client.send(with_headers(2000))
        assert (await client.until(OK)).startswith(b"HTTP/1.1 200")
    await client.send(with_headers(2001))
    assert refusal(await client.rest()) == (431, "headers_too_large")
    assert refused(server) == {"headers_too_large": 1}


@with_settings(max_header_bytes=2000, api_keys=(SecretStr("red:" + "r" * 20),))
@pytest.mark.parametrize("start", [b"GET /", GET, GET + b"X-Fill: ", b"\r\n"])
async def test_headers_without_an_end_are_refused(client: Client, start: bytes) -> None:
    await client.send(start)
    for _ in range(21):
        await client.send(b"\r\n" * 50 if start == b"\r\n" else b"a" * 100)
    assert refusal(await client.rest()) == (431, "headers_too_large")


@with_settings(max_header_bytes=2000)
@pytest.mark.parametrize("part", [b"0\r\nX: ", b"5;x="])
async def test_chunk_extensions_and_trailers_are_bounded(client: Client, part: bytes) -> None:
    await client.send(post_head("Transfer-Encoding: chunked") + b"1\r\n{\r\n")
    await client.send(part + b"a" * 5000)
    assert refusal(await client.rest()) == (431, "headers_too_large")


LARGE = post({**BODY, "messages": [{"role": "user", "content": "x" * 5000}]}, "Connection: close")
CHUNKED = (
    post_head("Transfer-Encoding: chunked", "Connection: close")
    + b"".join(b"1\r\n%c\r\n" % byte for byte in orjson.dumps(BODY) + b" " * 1000)
    + b"0\r\nX-Trailer: x\r\n\r\n"
)


@with_settings(max_header_bytes=1024)
@pytest.mark.parametrize("sent", [LARGE, CHUNKED], ids=["one piece", "many chunks"])
async def test_a_body_may_exceed_the_header_limit(
    worker: ScriptedWorker, client: Client, sent: bytes
) -> None:
    await client.send(sent)
    await worker.answer(await worker.take())
    assert (await client.rest()).startswith(b"HTTP/1.1 200")


@with_settings(header_timeout_s=SOON_S)
async def test_incomplete_headers_time_out_even_on_a_reused_connection(
    server: RunningApp,
) -> None:
    async with connected(server) as used:
        await used.get()
        # The others connect after this answer, which may take longer than their time limit.
        async with connected(server) as client, connected(server) as silent:
            for each in (client, used):
                await each.send(GET)
            for each in (client, used):
                assert refusal(await each.rest()) == (408, "request_timeout")
            assert await silent.rest() == b""
    assert refused(server) == {"header_timeout": 2}


@with_settings(header_timeout_s=SOON_S, body_timeout_s=60)
async def test_a_body_and_an_answer_may_take_longer_than_headers(
    worker: ScriptedWorker, client: Client
) -> None:
    request = post(BODY, "Connection: close")
    await client.send(request[:-1])
    await asyncio.sleep(1.5 * SOON_S)
    await client.send(request[-1:])
    job = await worker.take()
    await asyncio.sleep(1.5 * SOON_S)
    await worker.answer(job)
    assert (await client.rest()).startswith(b"HTTP/1.1 200")


@with_settings(body_timeout_s=SOON_S)
async def test_an_incomplete_body_times_out(
    server: RunningApp, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "LINGER_S", 60)
    await client.send(post(BODY)[:-1])
    assert refusal(await client.rest()) == (408, "request_timeout")
    assert refused(server) == {"body_timeout": 1}
    metrics = server.pool.part(Metrics)
    # The app is informed of the disconnection while the connection still exists.
    await until(lambda: b'status="499"' in metrics.exposition(None))
    assert len(open_connections(server)) == 1


@with_settings(body_timeout_s=SOON_S, api_keys=(SecretStr("red:" + "r" * 20),))
async def test_a_body_that_arrives_after_its_answer_times_out(server: RunningApp) -> None:
    async with connected(server) as client, asyncio.TaskGroup() as tasks:
        await client.send(post_head("Content-Length: 9000"))
        assert (await client.until(b"}}")).startswith(b"HTTP/1.1 401")
        dripping = tasks.create_task(drip(client))
        assert await client.rest() == b""
        dripping.cancel()
    assert refused(server) == {"body_timeout": 1}


@with_settings(max_connections=2)
async def test_a_connection_over_the_limit_is_refused_until_another_one_ends(
    server: RunningApp,
) -> None:
    async with connected(server) as first:
        await first.get()
        async with connected(server) as second:
            await second.get()
            async with connected(server) as third:
                await third.send(GET + b"\r\n")
                response = await third.rest()
            assert refusal(response) == (503, "too_many_connections")
            assert b"\r\nretry-after: 2\r\n" in response
            await first.get()
        await until(lambda: len(open_connections(server)) == 1)
        async with connected(server) as fourth:
            await fourth.last_get()
    assert refused(server) == {"too_many_connections": 1}


@with_settings(max_connections=1)
async def test_connections_far_over_the_limit_are_closed_without_a_response(
    server: RunningApp,
) -> None:
    async with connected(server), connected(server) as second, connected(server) as third:
        assert await third.rest() == b""
        assert refusal(await second.rest()) == (503, "too_many_connections")


@with_settings(send_timeout_s=SOON_S, disconnect_grace_s=0)
async def test_a_client_that_reads_nothing_is_disconnected_and_its_job_cancelled(
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
        await until(lambda: not server.pool.part(ReplyHub)._inboxes)


@with_settings(send_timeout_s=2 * SOON_S)
async def test_a_client_that_reads_slowly_gets_a_large_answer_completely(
    server: RunningApp, worker: ScriptedWorker
) -> None:
    text = "x" * 2_200_000
    async with connected(server, receive_buffer_bytes=65_536) as client:
        await client.send(post(BODY, "Connection: close"))
        job = await worker.take()
        await worker.finish(job, Choice(text=text, finish=FinishReason.STOP, ids=(1,)))
        data, start = b"", asyncio.get_running_loop().time()
        while piece := await client.receive():
            data += piece
            await asyncio.sleep(SOON_S / 10)
        assert asyncio.get_running_loop().time() - start > 3 * SOON_S
    assert orjson.loads(data.partition(b"\r\n\r\n")[2])["choices"][0]["message"]["content"] == text
    assert refused(server) == {}
