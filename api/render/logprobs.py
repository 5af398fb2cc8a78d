"""Renders log-probabilities in OpenAI's format. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from shared.protocol.logprobs import PositionLogprobs, TokenLogprob


def chat_logprobs(positions: Sequence[PositionLogprobs]) -> dict[str, Any]:
    """Return the `logprobs` of a chat choice."""
    content = [
        {**_chat_token(position.chosen), "top_logprobs": [_chat_token(t) for t in position.top]}
        for position in positions
    ]
    return {"content": content, "refusal": None}


def text_logprobs(positions: Sequence[PositionLogprobs]) -> dict[str, Any]:
    """Return the `logprobs` of a completion choice."""
    return {
        "tokens": [position.chosen.token for position in positions],
        "token_logprobs": [position.chosen.logprob for position in positions],
        "top_logprobs": [_text_top(position) for position in positions],
        "text_offset": [position.offset for position in positions],
    }


def prompt_logprobs(choices: Iterable[str]) -> list[orjson.Fragment | None]:
    """Return vLLM's `prompt_logprobs` of each choice.

    `choices` are the choices' scores as JSON. Only the first choice of each prompt has them, and
    they are repeated for its other choices.
    """
    rendered: list[orjson.Fragment | None] = []
    last: orjson.Fragment | None = None
    for scores in choices:
        last = orjson.Fragment(scores) if scores else last
        rendered.append(last)
    return rendered


def _chat_token(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.token, "logprob": token.logprob, "bytes": token.bytes}


def _text_top(position: PositionLogprobs) -> dict[str, float | None] | None:
    """Return the log-probabilities of the most likely tokens and the chosen token, by token text.

    Returns None for the first token of a prompt, which has no log-probability.
    """
    if position.chosen.logprob is None:
        return None
    top: dict[str, float | None] = {}
    for token in (*position.top, position.chosen):
        # Tokens with incomplete characters can have equal texts. Keep the most likely token.
        top.setdefault(token.token, token.logprob)
    return top
