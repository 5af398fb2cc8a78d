"""Renders the output of a job as bodies and stream chunks in OpenAI's format. Pure."""

from collections.abc import Iterable
from typing import Any

from api.follow.transcript import ChoiceTranscript, Delta
from api.render.answer_format import Format
from api.render.embeddings import EmbeddingFormat
from api.render.logprobs import chat_logprobs, text_logprobs
from api.render.reasoning import ReasoningAnswers
from api.render.scores import score_format
from api.render.token_fields import add_to_body
from api.render.tool_deltas import TOOL_CALLS, ToolAnswers
from shared.protocol.answers import AnswerSpec
from shared.protocol.ids import CHAT_PREFIX, COMPLETION_PREFIX
from shared.protocol.jobs import Endpoint
from shared.protocol.results import FinishReason, Usage


class ChatFormat(Format):
    """Format of /v1/chat/completions."""

    object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def __init__(self, spec: AnswerSpec, *, stream: bool) -> None:
        self.id = f"{CHAT_PREFIX}{spec.id}"
        self._has_logprobs = spec.has_logprobs
        self._tools = (
            ToolAnswers(spec.id, spec.tools, stream=stream, is_constrained=spec.is_constrained)
            if spec.tools
            else None
        )
        self._reasoning = (
            ReasoningAnswers(spec.reasoning, is_hidden=spec.hides_reasoning)
            if spec.reasoning
            else None
        )
        self._echoed = spec.echoed

    def choice(self, index: int, choice: ChoiceTranscript) -> dict[str, Any]:
        """Return a choice with its complete message."""
        return {
            "index": index,
            "message": {"role": "assistant", **self._message(index, choice.text, choice.finish)},
            "logprobs": chat_logprobs(choice.logprobs) if self._has_logprobs else None,
            "finish_reason": (reason := self._finish_reason(index, choice.finish)),
            **_stop_fields(reason, choice.stop),
        }

    def opening(self, num_choices: int) -> list[dict[str, Any]]:
        """Return one choice object for each choice, with the role of the message."""
        opening = {"role": "assistant", "content": self._echoed}
        return [_chat_chunk(index, opening, None) for index in range(num_choices)]

    def delta(self, delta: Delta) -> list[dict[str, Any]]:
        """Return choice objects for new text or tool calls.

        If `delta` has a finish reason, the last choice object has that reason and no new output.
        """
        rest, added = self._reasoning.deltas(delta) if self._reasoning else (delta, [])
        if self._tools:
            added += self._tools.deltas(rest)
        elif rest.text:
            added.append({"content": rest.text})
        if (delta.logprobs or delta.ids) and not added:
            added = [{"content": ""}]
        choices = [_chat_chunk(delta.choice, part, None) for part in added]
        if delta.logprobs:
            choices[0]["logprobs"] = chat_logprobs(delta.logprobs)
        if delta.finish:
            reason = self._finish_reason(delta.choice, delta.finish)
            last = _chat_chunk(delta.choice, {}, reason)
            choices.append({**last, **_stop_fields(reason, delta.stop)})
        return choices

    def _message(self, index: int, text: str, finish: FinishReason | None) -> dict[str, Any]:
        text, reasoning = self._reasoning.message(index, text) if self._reasoning else (text, {})
        message: dict[str, Any] = {"content": text, "tool_calls": None}
        if self._tools:
            message = self._tools.message(index, text, finish)
        if self._reasoning and self._reasoning.has_reasoning(index):
            message["content"] = message["content"] or None
        if self._echoed:
            message["content"] = self._echoed + (message["content"] or "")
        return {**message, **reasoning}

    def _finish_reason(self, index: int, finish: FinishReason | None) -> str | None:
        return self._tools.finish_reason(index, finish) if self._tools else finish


class CompletionFormat(Format):
    """Format of /v1/completions."""

    object = "text_completion"
    chunk_object = "text_completion"

    def __init__(self, spec: AnswerSpec) -> None:
        self.id = f"{COMPLETION_PREFIX}{spec.id}"
        self._has_logprobs = spec.has_logprobs

    def choice(self, index: int, choice: ChoiceTranscript) -> dict[str, Any]:
        """Return a choice with its complete text."""
        logprobs = text_logprobs(choice.logprobs) if self._has_logprobs else None
        fields = _text_choice(index, choice.text, choice.finish, logprobs)
        return {**fields, **_stop_fields(choice.finish, choice.stop)}

    def delta(self, delta: Delta) -> list[dict[str, Any]]:
        """Return one choice object with the output and the finish reason in `delta`.

        Returns an empty list if `delta` has no text, no log-probabilities, no token ids and no
        finish reason.
        """
        if not (delta.text or delta.finish or delta.logprobs or delta.ids):
            return []
        logprobs = text_logprobs(delta.logprobs) if delta.logprobs else None
        fields = _text_choice(delta.choice, delta.text, delta.finish, logprobs)
        return [{**fields, **_stop_fields(delta.finish, delta.stop)} if delta.finish else fields]


def format_of(spec: AnswerSpec, *, stream: bool) -> Format:
    """Return the answer format of the job's endpoint."""
    match spec.endpoint:
        case Endpoint.CHAT:
            return ChatFormat(spec, stream=stream)
        case Endpoint.COMPLETIONS:
            return CompletionFormat(spec)
        case Endpoint.EMBEDDINGS:
            return EmbeddingFormat(spec)
        case Endpoint.SCORES:
            return score_format(spec)


def complete_body(
    spec: AnswerSpec, choices: Iterable[ChoiceTranscript], usage: Usage
) -> dict[str, Any]:
    """Return the body of a response that isn't streamed. It has all finished choices of the job."""
    answer_format, choices = format_of(spec, stream=False), list(choices)
    body = {
        **head(answer_format, spec, answer_format.object),
        answer_format.choices_field: answer_format.all_choices(choices),
        "usage": usage_body(usage),
    }
    add_to_body(body, spec, choices)
    return body


def usage_body(usage: Usage) -> dict[str, Any]:
    """Return token counts as the `usage` object of OpenAI's API."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "completion_tokens": usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def head(answer_format: Format, spec: AnswerSpec, kind: str) -> dict[str, Any]:
    """Return the fields before the choices of a body or chunk. `kind` is the field `object`."""
    fields = {
        "id": answer_format.id,
        "object": kind,
        "created": spec.created_s,
        "model": spec.model,
        "system_fingerprint": spec.fingerprint,
        "weight_version": spec.version,
    }
    return {**fields, "service_tier": spec.service_tier} if spec.service_tier else fields


def _stop_fields(finish: str | None, stop: str | int | None) -> dict[str, Any]:
    """Return vLLM's and SGLang's fields for the stop string or stop token that ended a choice.

    For an answer with tool calls, the fields are null. Such an answer can end at a marker that
    follows a call, and the client didn't send this marker as a stop string.
    """
    stop = None if finish == TOOL_CALLS else stop
    return {"stop_reason": stop, "matched_stop": stop}


def _chat_chunk(index: int, delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}


def _text_choice(
    index: int, text: str, finish: FinishReason | None, logprobs: dict[str, Any] | None
) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}
