"""Adds vLLM's fields to OpenAI's format: token ids, prompt logprobs and token counts. Pure."""

from collections.abc import Sequence
from typing import Any

import orjson

from api.follow.transcript import ChoiceTranscript, Delta
from api.follow.updates import Update, deltas_of
from shared.protocol.answers import AnswerSpec
from shared.protocol.events import Admitted
from shared.protocol.jobs import Endpoint


def add_to_body(
    body: dict[str, Any], spec: AnswerSpec, choices: Sequence[ChoiceTranscript]
) -> None:
    """Add the token ids, and the scores of the prompts, to a complete body, if requested."""
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
    """Add vLLM's `prompt_logprobs` to the body of a chat, or to each choice of a completion."""
    if spec.endpoint is Endpoint.CHAT:
        scores = choices[0].prompt_scores if choices else ""
        body["prompt_logprobs"] = orjson.Fragment(scores) if scores else None
        return
    scores = ""
    for rendered, choice in zip(body["choices"], choices, strict=True):
        scores = choice.prompt_scores or scores  # only the first choice of each prompt has them
        rendered["prompt_logprobs"] = orjson.Fragment(scores) if scores else None


class ChunkTokens:
    """Adds the token ids and the token counts to the chunks of one stream."""

    def __init__(self, spec: AnswerSpec) -> None:
        self._spec = spec
        self._num_prompt_tokens = [0] * spec.num_choices
        self._num_tokens = [0] * spec.num_choices

    def open(self, updates: Sequence[Update], chunks: Sequence[dict[str, Any]]) -> None:
        """Add the token ids of the prompt and their number to the opening chunks of a chat."""
        if self._spec.returns_token_ids and chunks:
            chunks[0]["prompt_token_ids"] = prompt_ids(updates)
        if not self._spec.continuous_usage:
            return
        counts = (
            update.prompt_tokens if isinstance(update, Admitted) else len(update.prompt_ids)
            for update in updates
        )
        num_tokens = max(counts, default=0)
        for chunk in chunks:
            chunk["usage"] = _usage(num_tokens, 0)

    def add(self, delta: Delta, chunks: Sequence[dict[str, Any]]) -> None:
        """Add the tokens of `delta` to its chunks.

        The first chunk has the ids. Every chunk has the token counts of its choice, including
        `delta`.
        """
        index = delta.choice
        self._num_tokens[index] += len(delta.ids)
        if delta.prompt_ids:
            self._num_prompt_tokens[index] = len(delta.prompt_ids)
        if self._spec.returns_token_ids and chunks:
            self._add_ids(delta, chunks[0])
        if self._spec.continuous_usage:
            for chunk in chunks:
                chunk["usage"] = _usage(self._num_prompt_tokens[index], self._num_tokens[index])

    def _add_ids(self, delta: Delta, chunk: dict[str, Any]) -> None:
        [choice] = chunk["choices"]
        choice["token_ids"] = delta.ids
        if delta.prompt_ids and self._spec.endpoint is Endpoint.COMPLETIONS:
            choice["prompt_token_ids"] = delta.prompt_ids


def prompt_ids(updates: Sequence[Update]) -> Sequence[int]:
    """Return the token ids of the prompt. The first output of each choice has them."""
    return next((delta.prompt_ids for delta in deltas_of(updates) if delta.prompt_ids), ())


def _usage(prompt: int, output: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "total_tokens": prompt + output, "completion_tokens": output}
