"""Closed loop of streams: each stream sends its next request after the end of its last answer."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from ops.bench.load.popularity import probabilities
from ops.bench.load.prompts import prompt
from ops.bench.scale.streams.received_stream import ReceivedStream, is_sampled

Send = Callable[[bytes, ReceivedStream], Awaitable[None]]
"""Sends a request, and passes the answer to the received stream."""
Arrival = tuple[str, int, float]
"""Job, index of the token, and time at which the client got it."""

BodyOf = Callable[[str, int, str], dict[str, Any]]
"""Makes a request for a number of tokens to a model, with a prompt."""

PROMPT_WORDS = 32
MAX_ERRORS = 5
"""Number of errors that are kept as text."""


def body_of(model: str, tokens: int, text: str | Sequence[int]) -> dict[str, Any]:
    """Return a request for exactly `tokens` streamed tokens. The prompt is a text or token ids."""
    return {
        "model": model,
        "prompt": text,
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": True,
        "seed": 0,
    }


def chat_body_of(model: str, tokens: int, text: str) -> dict[str, Any]:
    """Return a request for a chat with exactly `tokens` streamed tokens, with one user message."""
    body = body_of(model, tokens, text)
    del body["prompt"]
    return {**body, "messages": [{"role": "user", "content": text}]}


@dataclass(slots=True)
class Totals:
    """Counts since the start of a load."""

    jobs: int = 0
    tokens: int = 0
    num_errors: int = 0
    errors: list[str] = field(default_factory=list)
    """The first errors."""

    def add_error(self, error: str) -> None:
        """Count an error."""
        self.num_errors += 1
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(error)


class Models:
    """Draws model names by Zipf's law. The first name is the most popular."""

    def __init__(self, names: Sequence[str], zipf_s: float) -> None:
        self._names = names
        shares = probabilities(len(names), zipf_s)
        self._cumulated = [sum(shares[:1])]
        for share in shares[1:]:
            self._cumulated.append(self._cumulated[-1] + share)

    def draw(self) -> str:
        """Return the model of the next request."""
        return random.choices(self._names, cum_weights=self._cumulated)[0]


class StreamLoad:
    """A load whose number of streams can be changed while it runs."""

    def __init__(self, sends: Sequence[Send], models: Models, *, body_of: BodyOf = body_of) -> None:
        """Create a load without streams.

        Stream n uses sender n modulo the number of `sends`. `body_of` makes the requests, by
        default those of completions.
        """
        self._body_of = body_of
        self.totals = Totals()
        self.arrivals: list[Arrival] = []
        """Arrivals of tokens of sampled jobs. The owner of the load may clear the list."""
        self._sends = sends
        self._models = models
        self._num_streams = 0
        self._tokens = 0
        self._running: dict[int, asyncio.Task[None]] = {}

    def resize(self, num_streams: int, tokens: int) -> None:
        """Change the load to `num_streams` streams, with `tokens` tokens per job.

        Running answers end as they began. The first job of a new stream is shorter by a random
        number of tokens, so that jobs don't end at the same time.
        """
        self._num_streams, self._tokens = num_streams, tokens
        for index in range(num_streams):
            if index not in self._running:
                self._running[index] = asyncio.create_task(self._stream(index))

    async def drain(self) -> None:
        """End all streams after their running answers."""
        self._num_streams = 0
        await asyncio.gather(*self._running.values())

    async def stop(self) -> None:
        """End all streams, and disconnect from their running answers."""
        self._num_streams = 0
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _stream(self, index: int) -> None:
        send, number = self._sends[index % len(self._sends)], 0
        tokens = random.randint(1, self._tokens)
        try:
            while index < self._num_streams:
                await self._answer(send, tokens, f"{index}/{number}")
                number, tokens = number + 1, self._tokens
        finally:
            del self._running[index]

    async def _answer(self, send: Send, tokens: int, seed: str) -> None:
        received = ReceivedStream(on_tokens=self._count)
        text = prompt(seed, 0, PROMPT_WORDS)
        try:
            await send(
                orjson.dumps(self._body_of(self._models.draw(), tokens, text)),
                received,
            )
        except (OSError, EOFError, ValueError) as error:
            received.error = f"{type(error).__name__}: {error}"
        if received.error is None and len(received.token_s) != tokens:
            received.error = f"{tokens} tokens requested, {len(received.token_s)} received"
        if received.error:
            self.totals.add_error(received.error)
        else:
            self.totals.jobs += 1

    def _count(self, received: ReceivedStream, num_new: int) -> None:
        self.totals.tokens += num_new
        if is_sampled(received.job):
            num, now_s = len(received.token_s), received.token_s[-1]
            new = range(num - num_new, num)
            self.arrivals.extend((received.job, index, now_s) for index in new)
