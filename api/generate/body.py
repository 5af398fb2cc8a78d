"""Renders answers to /generate. Pure."""

from collections.abc import Sequence
from typing import Any

from api.follow.transcript import ChoiceTranscript
from api.generate.answer_form import AnswerForm, form_of
from api.generate.logprobs import input_fields, output_fields
from shared.errors import JobError
from shared.protocol.answers import AnswerSpec
from shared.protocol.results import FinishReason, Usage

Reason = dict[str, Any]


def generated_body(
    spec: AnswerSpec,
    choices: Sequence[ChoiceTranscript],
    usage: Usage | None,
    *,
    aborted: JobError | None = None,
) -> dict[str, Any] | list[Any]:
    """Return the complete body: one answer, or a list of answers.

    If the job was cancelled, `aborted` is its error, and incomplete answers have the finish reason
    `abort`.
    """
    form, scores = form_of(spec.request), ""
    answers = []
    for index, choice in enumerate(choices):
        scores = choice.prompt_scores or scores  # only the first choice of each prompt has them
        answers.append(
            answer_body(spec, form, choice, index, scores=scores, usage=usage, aborted=aborted)
        )
    return answers if form.is_list else answers[0]


def answer_body(
    spec: AnswerSpec,
    form: AnswerForm,
    choice: ChoiceTranscript,
    index: int,
    *,
    scores: str = "",
    usage: Usage | None = None,
    aborted: JobError | None = None,
) -> dict[str, Any]:
    """Return one answer, which may be incomplete. `usage` has the token counts of a done job."""
    meta: dict[str, Any] = {
        "id": answer_id(spec, form, index),
        "finish_reason": _reason(choice, aborted),
        "prompt_tokens": len(choice.prompt_ids),
        "completion_tokens": len(choice.ids),
        "weight_version": spec.version,
    }
    if spec.num_choices == 1 and (usage or aborted):
        meta["cached_tokens"] = usage.cached_tokens if usage else 0
    if spec.has_logprobs:
        meta |= input_fields(choice, scores, form)
        meta |= output_fields(choice.ids, choice.logprobs, form)
    body = {"text": choice.text, "output_ids": choice.ids, "meta_info": meta}
    return body | ({"prompt_token_ids": choice.prompt_ids} if form.has_prompt_ids else {})


def answer_id(spec: AnswerSpec, form: AnswerForm, index: int) -> str:
    """Return the id of an answer. As in SGLang, the answers of a list are numbered."""
    name = form.rid or spec.id
    return f"{name}_{index}" if form.is_list else name


def _reason(choice: ChoiceTranscript, aborted: JobError | None) -> Reason | None:
    match choice.finish:
        case FinishReason.STOP:
            return {"type": "stop", "matched": _matched(choice)}
        case FinishReason.LENGTH:
            return {"type": "length", "length": len(choice.ids)}
    return {"type": "abort", "message": aborted.message} if aborted else None


def _matched(choice: ChoiceTranscript) -> int | str | None:
    """Return the string or the token id that ended an answer.

    The token may be an end-of-sequence token.
    """
    if choice.stop is not None:
        return choice.stop
    return choice.ids[-1] if choice.ids else None
