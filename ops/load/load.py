"""Sends load to any OpenAI-compatible server, in a closed or an open loop."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from ops.load.answers import Answer, ask, client
from ops.load.distributions import Arrivals, Closed, Length, Open, Popularity, due_times_s, pick
from ops.load.prompts import prompt

OnDone = Callable[[], None]
WORKLOAD_LENGTH = Length(128, 128)
"""Length of prompts (in words) and of answers (in tokens) in `make bench`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A series of greedy completion requests that ignore the end-of-sequence token."""

    url: str
    """URL of the server, including /v1."""
    models: tuple[str, ...]
    popularity: Popularity = Popularity.DISTINCT
    zipf_s: float = 1.0
    """Exponent of Zipf's law. Only `Popularity.ZIPF` uses it."""
    arrivals: Arrivals
    requests: int
    input_words: Length = WORKLOAD_LENGTH
    """Number of random words per prompt. Most tokenizers produce about one token per word."""
    shared_words: int = 0
    """Number of additional words at the start of each prompt. All prompts share these words."""
    output_tokens: Length = WORKLOAD_LENGTH
    stream: bool = True
    fields: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Additional fields in the bodies of requests to a model, by the model's name."""
    reuses_connections: bool = True
    """Whether one connection carries several requests, one after another."""
    seed: str = ""
    """Seed of prompts, lengths, models and arrivals. Loads with different seeds share no prompt."""


async def send_load(
    load: Load, on_done: OnDone = lambda: None, *, api_key: str | None = None
) -> list[Answer]:
    """Send the load, and return an answer per request.

    `on_done` is called after each answer, whether or not its request failed.
    """
    answers: list[Answer] = []
    http = client(load.url, api_key, reuses_connections=load.reuses_connections)
    async with http, asyncio.TaskGroup() as tasks:
        sender = _Sender(http, load, answers, on_done)
        match load.arrivals:
            case Closed(clients=clients):
                numbers = iter(range(load.requests))
                for _ in range(clients):
                    tasks.create_task(sender.send_each(numbers))
            case Open():
                start = time.perf_counter()
                for number, due in enumerate(due_times_s(load.arrivals, load.requests, load.seed)):
                    tasks.create_task(sender.send_at(start + due, number))
    return answers


def body_of(load: Load, number: int) -> dict[str, Any]:
    """Return the HTTP body of request `number`. The first request is number 0."""
    seed = f"{load.seed}/{number}"
    words = load.input_words.sample(f"{seed}/input")
    model = pick(load.popularity, len(load.models), number, zipf_s=load.zipf_s, seed=load.seed)
    name = load.models[model]
    body = {
        "model": name,
        "prompt": prompt(load.seed, number, words, shared_words=load.shared_words),
        "max_tokens": load.output_tokens.sample(f"{seed}/output"),
        "temperature": 0,
        "ignore_eos": True,
        "stream": load.stream,
        **load.fields.get(name, {}),
    }
    return body | ({"stream_options": {"include_usage": True}} if load.stream else {})


@dataclass(frozen=True, slots=True)
class _Sender:
    http: httpx.AsyncClient
    load: Load
    answers: list[Answer]
    on_done: OnDone

    async def send_each(self, numbers: Iterator[int]) -> None:
        """Send the requests `numbers` one after another, as a closed-loop client does."""
        for number in numbers:
            await self._send(number, time.perf_counter())

    async def send_at(self, due_s: float, number: int) -> None:
        """Send request `number` at `due_s`. Its latencies are measured from this time."""
        await asyncio.sleep(due_s - time.perf_counter())
        await self._send(number, due_s)

    async def _send(self, number: int, due_s: float) -> None:
        answer = Answer(due_s)
        self.answers.append(answer)
        await ask(self.http, self.load.url, body_of(self.load, number), answer)
        self.on_done()
