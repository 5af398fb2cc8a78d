"""Closed loop of streams: each stream sends its next request after its previous answer."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import orjson

from ops.lab.bench.streams.received_stream import ReceivedStream
from ops.load.distributions import probabilities
from ops.load.prompts import prompt

Send = Callable[[bytes, ReceivedStream], Awaitable[None]]
"""Function that sends a request body, and passes the answer to the received stream."""
BodyOf = Callable[[str, int, str], dict[str, Any]]
"""Function that makes a request's body from a model, a number of tokens and a prompt."""

PROMPT_WORDS = 32


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
    """Return a chat request with one user message, for exactly `tokens` streamed tokens."""
    body = body_of(model, tokens, text)
    del body["prompt"]
    return {**body, "messages": [{"role": "user", "content": text}]}


@dataclass(slots=True)
class Totals:
    """Numbers of jobs and tokens, times and errors of a load since its start."""

    jobs: int = 0
    tokens: int = 0
    first_token_s: list[float] = field(default_factory=list)
    """Time to the first token of each job, in seconds."""
    errors: list[str] = field(default_factory=list)


class StreamLoad:
    """Streams that run until the load is drained. They request models by Zipf's law."""

    def __init__(
        self, send: Send, models: Sequence[str], tokens: int, *, body_of: BodyOf = body_of
    ) -> None:
        """Create a load without streams.

        Args:
            send: sends a request.
            models: names of models, the most popular one first.
            tokens: number of tokens of each answer.
            body_of: makes the requests' bodies. By default, the requests are completions.
        """
        self._send = send
        self._models = models
        self._popularity = list(accumulate(probabilities(len(models), 1.0)))
        self._tokens = tokens
        self._body_of = body_of
        self._running: list[asyncio.Task[None]] = []
        self._is_over = False
        self.totals = Totals()

    def start(self, num_streams: int) -> None:
        """Start streams.

        The first job of each stream is shorter by a random number of tokens, so that the jobs don't
        all end at the same time.
        """
        self._running += [asyncio.create_task(self._stream(n)) for n in range(num_streams)]

    async def drain(self) -> None:
        """End all streams after their running answers."""
        self._is_over = True
        await asyncio.gather(*self._running)

    async def _stream(self, index: int) -> None:
        number, tokens = 0, random.randint(1, self._tokens)
        while not self._is_over:
            await self._answer(tokens, f"{index}/{number}")
            number, tokens = number + 1, self._tokens

    async def _answer(self, tokens: int, seed: str) -> None:
        received = ReceivedStream(on_tokens=self._count)
        (model,) = random.choices(self._models, cum_weights=self._popularity)
        body = self._body_of(model, tokens, prompt(seed, 0, PROMPT_WORDS))
        try:
            await self._send(orjson.dumps(body), received)
        except (OSError, EOFError, ValueError) as error:
            received.error = f"{type(error).__name__}: {error}"
        if received.error is None and len(received.token_s) != tokens:
            received.error = f"{tokens} tokens requested, {len(received.token_s)} received"
        if received.error:
            self.totals.errors.append(received.error)
        else:
            self.totals.jobs += 1

    def _count(self, received: ReceivedStream, num_new: int) -> None:
        self.totals.tokens += num_new
        if len(received.token_s) == num_new:
            self.totals.first_token_s.append(received.first_token_s)
