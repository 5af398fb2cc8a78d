"""Renders the output of a job as responses and stream chunks in OpenAI's format. Pure."""

from collections.abc import Iterable
from typing import Any, Protocol

import orjson

from api.follow.transcript import ChoiceTranscript, Delta
from api.render.logprobs import chat_logprobs, text_logprobs
from api.render.tool_deltas import ToolAnswers
from shared.protocol.ids import CHAT_PREFIX, COMPLETION_PREFIX
from shared.protocol.jobs import Endpoint, Job
from shared.protocol.results import FinishReason, Usage

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"


class Format(Protocol):
    """Answer format of one endpoint."""

    id: str
    object: str
    chunk_object: str

    def choice(self, index: int, choice: ChoiceTranscript) -> dict[str, Any]:
        """Return the choice object of a finished choice, for a response that isn't streamed."""

    def opening(self, num_choices: int) -> list[dict[str, Any]]:
        """Return the choice objects that start a stream. Each is sent in its own chunk."""

    def delta(self, delta: Delta) -> list[dict[str, Any]]:
        """Return zero or more choice objects for `delta`. Each is sent in its own chunk."""


class ChatFormat:
    """Format of /v1/chat/completions."""

    object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def __init__(self, job: Job, *, stream: bool) -> None:
        self.id = f"{CHAT_PREFIX}{job.id}"
        self._has_logprobs = job.sampling.logprobs is not None
        self._tools = ToolAnswers(job.id, job.tools, stream=stream) if job.tools else None

    def choice(self, index: int, choice: ChoiceTranscript) -> dict[str, Any]:
        """Return a choice with its complete message."""
        message: dict[str, Any] = {"content": choice.text, "tool_calls": None}
        if self._tools:
            message = self._tools.message(index, choice.text)
        return {
            "index": index,
            "message": {"role": "assistant", **message},
            "logprobs": chat_logprobs(choice.logprobs) if self._has_logprobs else None,
            "finish_reason": self._finish_reason(index, choice.finish),
        }

    def opening(self, num_choices: int) -> list[dict[str, Any]]:
        """Return one choice object for each choice, with the role of the message."""
        opening = {"role": "assistant", "content": ""}
        return [_chat_chunk(index, opening, None) for index in range(num_choices)]

    def delta(self, delta: Delta) -> list[dict[str, Any]]:
        """Return choice objects for new text or tool calls.

        If `delta` has a finish reason, the last choice object has that reason and no new output.
        """
        added: list[dict[str, Any]] = [{"content": delta.text}] if delta.text else []
        if self._tools:
            added = self._tools.deltas(delta)
        if delta.logprobs and not added:
            added = [{"content": ""}]
        choices = [_chat_chunk(delta.choice, part, None) for part in added]
        if delta.logprobs:
            choices[0]["logprobs"] = chat_logprobs(delta.logprobs)
        if delta.finish:
            reason = self._finish_reason(delta.choice, delta.finish)
            choices.append(_chat_chunk(delta.choice, {}, reason))
        return choices

    def _finish_reason(self, index: int, finish: FinishReason | None) -> str | None:
        return self._tools.finish_reason(index, finish) if self._tools else finish


class CompletionFormat:
    """Format of /v1/completions."""

    object = "text_completion"
    chunk_object = "text_completion"

    def __init__(self, job: Job) -> None:
        self.id = f"{COMPLETION_PREFIX}{job.id}"
        self._has_logprobs = job.sampling.logprobs is not None

    def choice(self, index: int, choice: ChoiceTranscript) -> dict[str, Any]:
        """Return a choice with its complete text."""
        logprobs = text_logprobs(choice.logprobs) if self._has_logprobs else None
        return _text_choice(index, choice.text, choice.finish, logprobs)

    def opening(self, num_choices: int) -> list[dict[str, Any]]:
        """Return an empty list, because a completion has no role to announce."""
        return []

    def delta(self, delta: Delta) -> list[dict[str, Any]]:
        """Return one choice object with the output and the finish reason in `delta`.

        Returns an empty list if `delta` has neither text nor a finish reason nor log-probabilities.
        """
        if not (delta.text or delta.finish or delta.logprobs):
            return []
        logprobs = text_logprobs(delta.logprobs) if delta.logprobs else None
        return [_text_choice(delta.choice, delta.text, delta.finish, logprobs)]


def format_of(job: Job, *, stream: bool) -> Format:
    """Return the answer format of the job's endpoint."""
    is_chat = job.endpoint is Endpoint.CHAT
    return ChatFormat(job, stream=stream) if is_chat else CompletionFormat(job)


def complete_body(
    answer_format: Format, job: Job, choices: Iterable[ChoiceTranscript], usage: Usage
) -> dict[str, Any]:
    """Return the body of a response that isn't streamed."""
    return {
        **_head(answer_format, job, answer_format.object),
        "choices": [answer_format.choice(index, choice) for index, choice in enumerate(choices)],
        "usage": usage_body(usage),
    }


class StreamWriter:
    """Renders the chunks of one stream as server-sent events."""

    def __init__(self, answer_format: Format, job: Job, *, include_usage: bool) -> None:
        self._format = answer_format
        self._num_choices = job.num_choices
        self._head = _head(answer_format, job, answer_format.chunk_object)
        self._include_usage = include_usage
        if include_usage:
            self._head["usage"] = None  # OpenAI's clients expect null in every chunk but the last

    def opening(self) -> bytes:
        """Return the chunks that precede the first token."""
        return self._chunks(self._format.opening(self._num_choices))

    def delta(self, delta: Delta) -> bytes:
        """Return the chunks for `delta`."""
        return self._chunks(self._format.delta(delta))

    def closing(self, usage: Usage) -> bytes:
        """Return the end of a successful stream, with the token counts if they were requested."""
        if not self._include_usage:
            return DONE
        return sse({**self._head, "choices": [], "usage": usage_body(usage)}) + DONE

    def _chunks(self, choices: Iterable[dict[str, Any]]) -> bytes:
        return b"".join(sse({**self._head, "choices": [choice]}) for choice in choices)


def sse(body: dict[str, Any]) -> bytes:
    """Return `body` as one server-sent event."""
    return b"data: " + orjson.dumps(body) + b"\n\n"


def usage_body(usage: Usage) -> dict[str, Any]:
    """Return token counts in OpenAI's format."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "completion_tokens": usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def _head(answer_format: Format, job: Job, kind: str) -> dict[str, Any]:
    return {
        "id": answer_format.id,
        "object": kind,
        "created": job.created_s,
        "model": job.model,
        "system_fingerprint": job.fingerprint,
    }


def _chat_chunk(index: int, delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}


def _text_choice(
    index: int, text: str, finish: FinishReason | None, logprobs: dict[str, Any] | None
) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}
