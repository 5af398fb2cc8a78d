"""The load of the measurements: received streams, and the closed loop."""

import asyncio

import orjson
import pytest
from queue_support import eventually

from ops.lab.bench.streams.received_stream import ReceivedStream
from ops.lab.bench.streams.stream_load import StreamLoad


def event(text: str) -> bytes:
    return b"id: 1\ndata: " + orjson.dumps({"choices": [{"text": text}]}) + b"\n\n"


def test_each_token_of_a_chunk_has_its_arrival_time() -> None:
    counted: list[int] = []
    received = ReceivedStream(on_tokens=lambda _, num_new: counted.append(num_new))
    received.begin(200, "job")
    received.receive(b": keep-alive\n\n")
    received.receive(event("00000000") + event("1111111122222222"))
    received.receive(event("") + b"data: [DONE]\n\n")
    assert (counted, len(received.token_s), received.error) == ([3], 3, None)
    assert received.first_token_s >= 0


@pytest.mark.parametrize(
    ("status", "piece", "error"),
    [
        (429, b"full", "HTTP 429: full"),
        (200, b'data: {"error": {"code": "internal"}}\n\n', "{'code': 'internal'}"),
    ],
)
def test_refusals_and_errors_are_kept(status: int, piece: bytes, error: str) -> None:
    received = ReceivedStream()
    received.begin(status, "job")
    received.receive(piece)
    assert received.error == error


async def send_one_token_less(body: bytes, received: ReceivedStream) -> None:
    received.begin(200, "job")
    await asyncio.sleep(0)
    received.receive(event("0" * 8 * (orjson.loads(body)["max_tokens"] - 1)))


async def test_an_incomplete_answer_is_an_error() -> None:
    load = StreamLoad(send_one_token_less, ["a"], 4)
    load.start(1)
    await eventually(lambda: len(load.totals.errors) > 3)  # the first job may be shorter
    await load.drain()
    assert load.totals.jobs == 0
    assert load.totals.errors[-1] == "4 tokens requested, 3 received"
