"""Renders log-probabilities in OpenAI's format, and vLLM's fields of tokens. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from api.follow.transcript import ChoiceTranscript, Delta
from shared.protocol.answers import AnswerSpec
from shared.protocol.jobs import Endpoint
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


def add_to_body(
    body: dict[str, Any], spec: AnswerSpec, choices: Sequence[ChoiceTranscript]
) -> None:
    """Add the token ids and the scores of the prompts to a complete body, if it has them."""
    if spec.has_prompt_scores:
        _add_prompt_logprobs(body, spec, choices)
    if not spec.returns_token_ids:
        return
    for rendered, choice in zip(body["choices"], choices, strict=True):
        rendered["token_ids"] = choice.ids
        if spec.endpoint is Endpoint.COMPLETIONS:
            rendered["prompt_token_ids"] = choice.prompt_ids
    if spec.endpoint is Endpoint.CHAT and choices:
        body["prompt_token_ids"] = choices[0].prompt_ids


def _add_prompt_logprobs(
    body: dict[str, Any], spec: AnswerSpec, choices: Sequence[ChoiceTranscript]
) -> None:
    scores = prompt_logprobs(choice.prompt_scores for choice in choices)
    if spec.endpoint is Endpoint.CHAT:
        body["prompt_logprobs"] = scores[0] if scores else None
        return
    for rendered, of_prompt in zip(body["choices"], scores, strict=True):
        rendered["prompt_logprobs"] = of_prompt


class ChunkTokens:
    """Adds the token ids and the token counts to the chunks of one stream."""

    def __init__(self, spec: AnswerSpec) -> None:
        self._spec = spec
        self._num_prompt_tokens = [0] * spec.num_choices
        self._num_tokens = [0] * spec.num_choices

    def add(self, delta: Delta, chunks: Sequence[dict[str, Any]]) -> None:
        """Add the tokens of `delta` to its chunks.

        The first chunk has the ids. Every chunk has the token counts of its choice after `delta`.
        """
        index = delta.choice
        self._num_tokens[index] += len(delta.ids)
        if delta.prompt_ids:
            self._num_prompt_tokens[index] = len(delta.prompt_ids)
        if self._spec.returns_token_ids and chunks:
            self._add_ids(delta, chunks[0])
        if self._spec.continuous_usage:
            for chunk in chunks:
                chunk["usage"] = self._usage(index)

    def _add_ids(self, delta: Delta, chunk: dict[str, Any]) -> None:
        [choice] = chunk["choices"]
        choice["token_ids"] = delta.ids
        if delta.prompt_ids and self._spec.endpoint is Endpoint.COMPLETIONS:
            choice["prompt_token_ids"] = delta.prompt_ids
        elif delta.prompt_ids and delta.choice == 0:
            chunk["prompt_token_ids"] = delta.prompt_ids

    def _usage(self, index: int) -> dict[str, int]:
        prompt, output = self._num_prompt_tokens[index], self._num_tokens[index]
        return {
            "prompt_tokens": prompt,
            "total_tokens": prompt + output,
            "completion_tokens": output,
        }
