"""The load of the measurements: received streams, and the closed loop."""

import asyncio
from collections import Counter

import orjson
import pytest

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


class Echo:
    """Sends at once as many tokens as requested, or fewer."""

    def __init__(self, missing: int = 0) -> None:
        self.tokens: list[int] = []
        self.models: Counter[str] = Counter()
        self.open = 0
        self._missing = missing
        self._has_sent = asyncio.Event()

    async def until_sent(self, num_jobs: int) -> None:
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
