"""Closed-loop load on any OpenAI-compatible server: C clients, each sends when it was answered.

`python -m ops.bench.load URL MODEL...` loads a server that runs already, ours or a peer's.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Annotated, Any

import httpx
import orjson
import typer

from ops.bench.percentiles import Percentiles, percentiles
from ops.bench.prompts import prompt

CONNECT_TIMEOUT_S = 10.0
SILENCE_TIMEOUT_S = 300.0
"""A stream that says nothing for this long is an error; slow peers queue for most of a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is sent: streamed greedy completions that go on after the end-of-sequence token."""

    url: str
    """The server, up to and including /v1."""
    models: tuple[str, ...]
    """Taken in turn, request by request."""
    clients: int
    requests: int
    prompt_words: int = 128
    max_tokens: int = 128
    seed: str = ""
    """Loads of different seeds share no prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What one load measured, over the answers that came in full."""

    load: Load
    answered: int
    errors: tuple[str, ...]
    """One for each request that failed or was answered with another number of tokens."""
    output_tokens: int
    seconds: float
    """From the first send to the last token."""
    tokens_per_s: float
    ttft_s: Percentiles
    """Time from sending to the first text."""
    itl_s: Percentiles
    """Time between two pieces of text of one answer."""


async def run_load(load: Load, on_done: Callable[[], None] = lambda: None) -> LoadReport:
    """Send the load and measure it; a failed request is an error in the report.

    `on_done` is called after each request, failed ones included.
    """
    numbers = iter(range(load.requests))
    answers: list[_Answer] = []
    timeout = httpx.Timeout(SILENCE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    # A proxy in the environment would stand between us and a server on this machine.
    async with (
        httpx.AsyncClient(timeout=timeout, limits=limits, trust_env=False) as http,
        asyncio.TaskGroup() as clients,
    ):
        for _ in range(load.clients):
            clients.create_task(_client(http, load, numbers, answers, on_done))
    return _report(load, answers)


@dataclass(slots=True)
class _Answer:
    sent_s: float
    text_s: list[float] = field(default_factory=list)
    """When each piece of text came."""
    tokens: int | None = None
    """As the server counts them."""
    error: str | None = None


async def _client(
    http: httpx.AsyncClient,
    load: Load,
    numbers: Iterator[int],
    answers: list[_Answer],
    on_done: Callable[[], None],
) -> None:
    for number in numbers:
        answer = _Answer(time.perf_counter())
        answers.append(answer)
        try:
            await _ask(http, load, number, answer)
        except (httpx.HTTPError, ValueError, KeyError) as error:  # no answer, or not as OpenAI's
            answer.error = f"{type(error).__name__}: {error}"
        on_done()


async def _ask(http: httpx.AsyncClient, load: Load, number: int, answer: _Answer) -> None:
    async with http.stream("POST", f"{load.url}/completions", json=_body(load, number)) as reply:
        if reply.status_code != 200:
            text = (await reply.aread()).decode(errors="replace")
            answer.error = f"HTTP {reply.status_code}: {text[:200]}"
            return
        async for chunk in _chunks(reply):
            _take(chunk, answer)
    if answer.error is None and answer.tokens != load.max_tokens:
        answer.error = f"{load.max_tokens} tokens asked, {answer.tokens} answered"
    elif answer.error is None and not answer.text_s:
        answer.error = "no text"


def _body(load: Load, number: int) -> dict[str, Any]:
    return {
        "model": load.models[number % len(load.models)],
        "prompt": prompt(load.seed, number, load.prompt_words),
        "max_tokens": load.max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def _chunks(reply: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The JSON of each SSE event up to [DONE]."""
    rest = b""
    # Not aiter_lines: it also ends a line at U+2028 and others, which JSON strings may hold.
    async for piece in reply.aiter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:") and line[5:].strip() != b"[DONE]":
                yield orjson.loads(line[5:])


def _take(chunk: dict[str, Any], answer: _Answer) -> None:
    if chunk.get("error"):
        answer.error = str(chunk["error"])[:200]
    if usage := chunk.get("usage"):
        answer.tokens = usage["completion_tokens"]
    if any(choice["text"] for choice in chunk.get("choices", ())):
        answer.text_s.append(time.perf_counter())


def _report(load: Load, answers: list[_Answer]) -> LoadReport:
    good = [answer for answer in answers if answer.error is None]
    tokens = sum(answer.tokens or 0 for answer in good)
    start = min((answer.sent_s for answer in answers), default=0.0)
    seconds = max((answer.text_s[-1] for answer in good), default=start) - start
    gaps = [b - a for answer in good for a, b in pairwise(answer.text_s)]
    return LoadReport(
        load=load,
        answered=len(good),
        errors=tuple(answer.error for answer in answers if answer.error is not None),
        output_tokens=tokens,
        seconds=seconds,
        tokens_per_s=tokens / seconds if seconds else 0.0,
        ttft_s=percentiles([answer.text_s[0] - answer.sent_s for answer in good]),
        itl_s=percentiles(gaps),
    )


def main(
    url: Annotated[str, typer.Argument(help="the server, up to and including /v1")],
    models: Annotated[list[str], typer.Argument(help="model names, taken in turn")],
    clients: Annotated[int, typer.Option(help="requests in flight")] = 8,
    requests: Annotated[int, typer.Option(help="requests in all")] = 16,
) -> None:
    """Load a running server and print the report as JSON."""
    load = Load(url=url, models=tuple(models), clients=clients, requests=requests)
    print(json.dumps(asdict(asyncio.run(run_load(load))), indent=2))


if __name__ == "__main__":
    typer.run(main)
