"""The closed loop of streams, with a sender that answers at once."""

import asyncio
from collections import Counter

import orjson

from ops.lab.bench.streams.received_stream import ReceivedStream
from ops.lab.bench.streams.stream_load import StreamLoad


class Echo:
    """Sends as many tokens as requested, or fewer."""

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
        num_tokens = request["max_tokens"]
        self.models[request["model"]] += 1
        self.tokens.append(num_tokens)
        received.begin(200, f"job-{len(self.tokens)}")
        text = "0" * 8 * (num_tokens - self._missing)
        await asyncio.sleep(0)
        received.receive(b"data: " + orjson.dumps({"choices": [{"text": text}]}) + b"\n\n")
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
