"""The closed loop of streams, with a sender that answers at once."""

import asyncio
from collections import Counter

import orjson

from ops.bench.scale.streams.received_stream import ReceivedStream
from ops.bench.scale.streams.stream_load import Models, StreamLoad


class Echo:
    """Sends as many tokens as requested, or fewer."""

    def __init__(self, missing: int = 0) -> None:
        self.tokens: list[int] = []
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
        num_tokens = orjson.loads(body)["max_tokens"]
        self.tokens.append(num_tokens)
        received.begin(200, f"job-{len(self.tokens)}")
        text = "0" * 8 * (num_tokens - self._missing)
        await asyncio.sleep(0)
        received.receive(b"data: " + orjson.dumps({"choices": [{"text": text}]}) + b"\n\n")
        self.open -= 1
        self._has_sent.set()


async def test_a_load_grows_and_ends_with_whole_answers() -> None:
    first, second = Echo(), Echo()
    load = StreamLoad([first.send, second.send], Models(["a", "b"], 1.0))
    load.resize(1, 4)
    await first.until_sent(10)
    assert second.tokens == []
    load.resize(2, 6)
    await second.until_sent(10)
    await load.drain()
    assert (first.open, second.open) == (0, 0)
    sent = [*first.tokens, *second.tokens]
    assert load.totals.jobs == len(sent)
    assert load.totals.tokens == sum(sent)
    assert set(second.tokens[1:]) == {6}  # the first job may be shorter
    assert load.totals.errors == []
    assert load.arrivals


async def test_an_incomplete_answer_is_an_error() -> None:
    echo = Echo(missing=1)
    load = StreamLoad([echo.send], Models(["a"], 1.0))
    load.resize(1, 4)
    await echo.until_sent(20)
    await load.stop()
    assert load.totals.jobs == 0
    assert load.totals.num_errors >= 18
    assert len(load.totals.errors) == 5
    assert load.totals.errors[-1] == "4 tokens requested, 3 received"


def test_models_are_drawn_by_zipfs_law() -> None:
    models = Models(["a", "b"], 1.0)
    drawn = Counter(models.draw() for _ in range(3000))
    assert 1.6 < drawn["a"] / drawn["b"] < 2.5
