"""Renders log-probabilities in OpenAI's format. Pure."""

from collections.abc import Sequence
from typing import Any

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


def _chat_token(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.token, "logprob": token.logprob, "bytes": token.bytes}


def _text_top(position: PositionLogprobs) -> dict[str, float | None] | None:
    """Return the log-probabilities of the chosen token and the most likely tokens, by text.

    The chosen token is first, as in vLLM. Returns None for the first token of a prompt, which has
    no log-probability.
    """
    if position.chosen.logprob is None:
        return None
    chosen = position.chosen
    top: dict[str, float | None] = {}
    for token in (*position.top, chosen):
        # Tokens with incomplete characters can have equal texts. Keep the most likely token.
        top.setdefault(token.token, token.logprob)
    return {chosen.token: chosen.logprob, **top}
