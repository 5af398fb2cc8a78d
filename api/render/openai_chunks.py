"""From what a job has produced to the bytes that OpenAI's clients read. Pure."""

from collections.abc import Iterable
from typing import Any, Protocol

import orjson

from api.follow.transcript import ChoiceTranscript, Delta
from api.render.logprobs import chat_logprobs, text_logprobs
from api.render.tool_deltas import ToolAnswers
from shared.protocol.answer_ids import CHAT_PREFIX, COMPLETION_PREFIX
from shared.protocol.jobs import Endpoint, Job
from shared.protocol.results import FinishReason, Usage

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"


class Shape(Protocol):
    """How one endpoint writes its answers."""

    id: str
    object: str
    chunk_object: str

    def choice(self, index: int, choice: ChoiceTranscript) -> dict[str, Any]:
        """A finished choice of a whole response."""

    def opening(self, num_choices: int) -> list[dict[str, Any]]:
        """The choices of the chunks that open a stream."""

    def delta(self, delta: Delta) -> list[dict[str, Any]]:
        """The choices of the chunks that show `delta`; none if there is nothing to see."""


class ChatShape:
    """/v1/chat/completions."""

    object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def __init__(self, job: Job, *, stream: bool) -> None:
        self.id = f"{CHAT_PREFIX}{job.id}"
        self._tells_logprobs = job.sampling.logprobs is not None
        self._tools = ToolAnswers(job.id, job.tools, stream=stream) if job.tools else None

    def choice(self, index: int, choice: ChoiceTranscript) -> dict[str, Any]:
        """The whole message."""
        message: dict[str, Any] = {"content": choice.text, "tool_calls": None}
        if self._tools:
            message = self._tools.message(index, choice.text)
        return {
            "index": index,
            "message": {"role": "assistant", **message},
            "logprobs": chat_logprobs(choice.logprobs) if self._tells_logprobs else None,
            "finish_reason": self._finish(index, choice.finish),
        }

    def opening(self, num_choices: int) -> list[dict[str, Any]]:
        """The role, once for each choice."""
        opening = {"role": "assistant", "content": ""}
        return [_chat_chunk(index, opening, None) for index in range(num_choices)]

    def delta(self, delta: Delta) -> list[dict[str, Any]]:
        """The text or what it calls; then the reason to finish, in a chunk of its own."""
        added: list[dict[str, Any]] = [{"content": delta.text}] if delta.text else []
        if self._tools:
            added = self._tools.deltas(delta)
        if delta.logprobs and not added:
            added = [{"content": ""}]
        choices = [_chat_chunk(delta.choice, part, None) for part in added]
        if delta.logprobs:
            choices[0]["logprobs"] = chat_logprobs(delta.logprobs)
        if delta.finish:
            choices.append(_chat_chunk(delta.choice, {}, self._finish(delta.choice, delta.finish)))
        return choices

    def _finish(self, index: int, finish: FinishReason | None) -> str | None:
        return self._tools.finish(index, finish) if self._tools else finish


class CompletionShape:
    """/v1/completions."""

    object = "text_completion"
    chunk_object = "text_completion"

    def __init__(self, job: Job) -> None:
        self.id = f"{COMPLETION_PREFIX}{job.id}"
        self._tells_logprobs = job.sampling.logprobs is not None

    def choice(self, index: int, choice: ChoiceTranscript) -> dict[str, Any]:
        """The whole text."""
        logprobs = text_logprobs(choice.logprobs) if self._tells_logprobs else None
        return _text_choice(index, choice.text, choice.finish, logprobs)

    def opening(self, num_choices: int) -> list[dict[str, Any]]:
        """Nothing: a text has no role."""
        return []

    def delta(self, delta: Delta) -> list[dict[str, Any]]:
        """The text and the reason to finish."""
        if not (delta.text or delta.finish or delta.logprobs):
            return []
        logprobs = text_logprobs(delta.logprobs) if delta.logprobs else None
        return [_text_choice(delta.choice, delta.text, delta.finish, logprobs)]


def shape_of(job: Job, *, stream: bool) -> Shape:
    """How the answers to `job` are written."""
    is_chat = job.endpoint is Endpoint.CHAT
    return ChatShape(job, stream=stream) if is_chat else CompletionShape(job)


def whole(
    shape: Shape, job: Job, choices: Iterable[ChoiceTranscript], usage: Usage
) -> dict[str, Any]:
    """The response that isn't streamed."""
    return {
        **_head(shape, job, shape.object),
        "choices": [shape.choice(index, choice) for index, choice in enumerate(choices)],
        "usage": usage_body(usage),
    }


class StreamWriter:
    """Writes one stream's chunks as server-sent events."""

    def __init__(self, shape: Shape, job: Job, *, include_usage: bool) -> None:
        self._shape = shape
        self._num_choices = job.num_choices
        self._head = _head(shape, job, shape.chunk_object)
        self._include_usage = include_usage
        if include_usage:
            self._head["usage"] = None  # OpenAI's clients expect it in every chunk but the last

    def opening(self) -> bytes:
        """What comes before the first token."""
        return self._chunks(self._shape.opening(self._num_choices))

    def delta(self, delta: Delta) -> bytes:
        """What shows `delta`."""
        return self._chunks(self._shape.delta(delta))

    def closing(self, usage: Usage) -> bytes:
        """What ends a stream that went well."""
        if not self._include_usage:
            return DONE
        return sse({**self._head, "choices": [], "usage": usage_body(usage)}) + DONE

    def _chunks(self, choices: Iterable[dict[str, Any]]) -> bytes:
        return b"".join(sse({**self._head, "choices": [choice]}) for choice in choices)


def sse(body: dict[str, Any]) -> bytes:
    """`body` as one server-sent event."""
    return b"data: " + orjson.dumps(body) + b"\n\n"


def usage_body(usage: Usage) -> dict[str, Any]:
    """Token counts, in OpenAI's words."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "completion_tokens": usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def _head(shape: Shape, job: Job, kind: str) -> dict[str, Any]:
    return {
        "id": shape.id,
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
