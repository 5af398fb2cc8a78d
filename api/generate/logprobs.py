"""Renders log-probabilities in SGLang's format. Pure.

Each entry is a list of the log-probability, the id of the token, and its text or null.
"""

from collections.abc import Sequence
from typing import Any

import orjson

from api.follow.transcript import ChoiceTranscript
from api.generate.answer_form import AnswerForm
from shared.protocol.logprobs import PositionLogprobs, TokenLogprob

Entry = list[Any]
_ID = "token_id:"
"""Prefix of a token's name in log-probabilities that were requested without the tokens' texts."""


def output_fields(
    ids: Sequence[int], positions: Sequence[PositionLogprobs], form: AnswerForm
) -> dict[str, Any]:
    """Return the fields of `meta_info` that have the log-probabilities of an answer's tokens."""
    entries = [
        [position.chosen.logprob, token_id, position.chosen.token if form.has_texts else None]
        for token_id, position in zip(ids, positions, strict=False)
    ]
    fields: dict[str, Any] = {
        "output_token_logprobs": entries,
        "output_token_logprobs_length": len(entries),
    }
    if form.num_top:
        fields["output_top_logprobs"] = [list(map(_entry, each.top)) for each in positions]
    if form.listed:
        fields["output_token_ids_logprobs"] = [_listed(each, form) for each in positions]
    return fields


def input_fields(choice: ChoiceTranscript, scores: str, form: AnswerForm) -> dict[str, Any]:
    """Return the fields of `meta_info` that have the log-probabilities of the prompt's tokens.

    `scores` are the scores of the prompt in the form of `Tokens.prompt_scores`.
    """
    if form.start is None or not scores:
        return {"input_token_logprobs": [], **({"input_top_logprobs": []} if form.num_top else {})}
    positions = orjson.loads(scores)[form.start :]
    ids = choice.prompt_ids[form.start :]
    found = [
        (each or {}).get(str(token_id)) for token_id, each in zip(ids, positions, strict=False)
    ]
    entries: list[Entry] = [
        [
            each and each["logprob"],
            token_id,
            each["decoded_token"] if form.has_texts and each else None,
        ]
        for token_id, each in zip(ids, found, strict=False)
    ]
    if entries:
        entries[0][0] = None  # as in SGLang, which doesn't score the first of the tokens
    fields: dict[str, Any] = {"input_token_logprobs": entries}
    if form.num_top:
        top = [_most_likely(each, form) for each in positions]
        fields["input_top_logprobs"] = [None, *top[1:]] if top else []
    return fields


def _entry(token: TokenLogprob) -> Entry:
    return [token.logprob, int(token.token.removeprefix(_ID)), None]


def _listed(position: PositionLogprobs, form: AnswerForm) -> list[Entry]:
    by_id = {entry[1]: entry for entry in map(_entry, position.top)}
    return [by_id[token_id] for token_id in form.listed if token_id in by_id]


def _most_likely(position: dict[str, Any] | None, form: AnswerForm) -> list[Entry]:
    """Return the most likely tokens of a position, the most likely first."""
    ranked = [(each["rank"], token_id, each) for token_id, each in (position or {}).items()]
    ranked = sorted(entry for entry in ranked if entry[0] <= form.num_top)
    return [[each["logprob"], int(token_id), None] for _, token_id, each in ranked[: form.num_top]]
