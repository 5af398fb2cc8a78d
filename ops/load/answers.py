"""Sends one request to an OpenAI-compatible server, and records when its answer arrives."""

import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx
import orjson

from ops.server_client import client_options, sse_lines

CONNECT_TIMEOUT_S = 10.0
SILENCE_TIMEOUT_S = 300.0
"""A request fails if the server sends no data for this long.

The limit is generous, because slow servers may queue a request for almost a minute.
"""


@dataclass(slots=True)
class Answer:
    """Times and token counts of one answer. Times are in seconds of `time.perf_counter`."""

    sent_s: float
    """Time at which the request was due to be sent."""
    text_s: list[float] = field(default_factory=list)
    """Arrival time of each piece of text. Empty for an answer that isn't streamed."""
    end_s: float = 0.0
    """Arrival time of the last piece of text or, without streaming, of the complete answer."""
    input_tokens: int = 0
    output_tokens: int | None = None
    """Number of output tokens as reported by the server. None if the server reported none."""
    error: str | None = None

    @property
    def gaps_s(self) -> list[float]:
        """Times between consecutive pieces of text, in seconds."""
        return [after - before for before, after in pairwise(self.text_s)]

    @property
    def mean_itl_s(self) -> float:
        """Mean time between consecutive output tokens, in seconds.

        The mean is computed from the token count, because a piece of text may hold several tokens.
        """
        tokens = max((self.output_tokens or 0) - 1, 1)
        return (self.text_s[-1] - self.text_s[0]) / tokens if self.text_s else 0.0


def client(
    url: str, api_key: str | None = None, *, reuses_connections: bool = True
) -> httpx.AsyncClient:
    """Return a client for any number of concurrent requests to the server at `url`."""
    timeout = httpx.Timeout(SILENCE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    kept = None if reuses_connections else 0
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=kept)
    return httpx.AsyncClient(timeout=timeout, limits=limits, **client_options(url, api_key))


async def ask(http: httpx.AsyncClient, url: str, body: dict[str, Any], answer: Answer) -> None:
    """Post a completion request to `url`, which ends with /v1. Record the result in `answer`."""
    try:
        async with http.stream("POST", f"{url}/completions", json=body) as reply:
            await _read(reply, body, answer)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError) as error:
        # There is no reply, or it isn't in OpenAI's format.
        answer.error = f"{type(error).__name__}: {error}"
        return
    wanted = body["max_tokens"]
    if answer.error is None and answer.output_tokens != wanted:
        answer.error = f"{wanted} tokens requested, {answer.output_tokens} received"
    elif answer.error is None and body["stream"] and not answer.text_s:
        answer.error = "no text"


async def _read(reply: httpx.Response, body: dict[str, Any], answer: Answer) -> None:
    if reply.status_code != 200:
        text = (await reply.aread()).decode(errors="replace")
        answer.error = f"HTTP {reply.status_code}: {text[:200]}"
    elif body["stream"]:
        async for line in sse_lines(reply):
            if line.startswith("data:") and line[5:].strip() != "[DONE]":
                _read_chunk(orjson.loads(line[5:]), answer)
    else:
        _read_usage(orjson.loads(await reply.aread()), answer)
        answer.end_s = time.perf_counter()


def _read_chunk(chunk: dict[str, Any], answer: Answer) -> None:
    if chunk.get("error"):
        answer.error = str(chunk["error"])[:200]
    if chunk.get("usage"):
        _read_usage(chunk, answer)
    if any(choice["text"] for choice in chunk.get("choices", ())):
        answer.end_s = time.perf_counter()
        answer.text_s.append(answer.end_s)


def _read_usage(body: dict[str, Any], answer: Answer) -> None:
    answer.input_tokens = body["usage"].get("prompt_tokens", 0)
    answer.output_tokens = body["usage"]["completion_tokens"]
