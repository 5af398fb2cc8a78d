"""Builds response objects of Ollama's API. Pure.

The source of the fields is `api/types.go` of ollama/ollama. As there, durations of 0 are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from api.follow.transcript import ChoiceTranscript
from api.ollama.timestamps import timestamp
from api.render.blocks import Block, BlockKind, BlockReader, read_blocks
from api.render.durations import Durations
from api.render.embeddings import floats_of
from api.render.logprobs import chat_logprobs
from shared.protocol.answers import AnswerSpec
from shared.protocol.logprobs import PositionLogprobs
from shared.protocol.results import FinishReason, Usage

_MEASURED = (
    *("total_duration", "load_duration", "prompt_eval_count"),
    *("prompt_eval_duration", "eval_count", "eval_duration"),
)
"""Fields of an answer that have counts and durations, in the order in which Ollama sends them."""


class Kind(StrEnum):
    """Kind of an answer: the route of its request. `Job.request` stores it as `kind`."""

    CHAT = "chat"
    GENERATE = "generate"
    EMBED = "embed"
    EMBEDDINGS = "embeddings"
    """/api/embeddings, the older route, which returns a single embedding."""


@dataclass(slots=True)
class Part:
    """A part of an answer: its text, the model's thinking, and its tool calls."""

    texts: list[str] = field(default_factory=list)
    """Pieces of text."""
    thoughts: list[str] = field(default_factory=list)
    """Pieces of thinking."""
    calls: list[dict[str, Any]] = field(default_factory=list)
    logprobs: list[PositionLogprobs] = field(default_factory=list)
    """Log-probabilities of the tokens in the text."""

    @property
    def is_empty(self) -> bool:
        """Whether the part has no text, thinking, calls or log-probabilities to send."""
        return not (any(self.texts) or self.thoughts or self.calls or self.logprobs)


def request_of(kind: Kind, model: str) -> dict[str, Any]:
    """Return the value of `Job.request` for a request that names `model`."""
    return {"kind": kind, "model": model}


def head(model: str, created_s: float) -> dict[str, Any]:
    """Return the fields with which each object of an answer begins."""
    return {"model": model, "created_at": timestamp(created_s)}


def answer_part(spec: AnswerSpec, part: Part) -> dict[str, Any]:
    """Return the object that reports a part of the answer.

    The object has the field `done` with the value false. For the last object of an answer,
    `end_fields` replaces this value.
    """
    text, thinking = "".join(part.texts), "".join(part.thoughts)
    thought = {"thinking": thinking} if thinking else {}
    called = {"tool_calls": part.calls} if part.calls else {}
    message: dict[str, Any] = {"response": text, **thought}
    if _kind(spec) is Kind.CHAT:
        message = {"message": {"role": "assistant", "content": text, **thought, **called}}
    body = {**head(_model(spec), spec.created_s), **message, "done": False}
    return body | ({"logprobs": _logprobs(part.logprobs)} if part.logprobs else {})


def end_fields(
    finish: FinishReason | None, usage: Usage, durations: Durations | None
) -> dict[str, Any]:
    """Return the fields that the last object of an answer has in addition."""
    reason = "length" if finish is FinishReason.LENGTH else "stop"
    counts = {
        "prompt_eval_count": usage.prompt_tokens,
        "eval_count": usage.completion_tokens,
    }
    measured = _times(durations) | counts
    in_order = {name: measured[name] for name in _MEASURED if name in measured}
    return {"done": True, "done_reason": reason, **in_order}


def finished_answer(
    spec: AnswerSpec,
    choices: Sequence[ChoiceTranscript],
    usage: Usage,
    durations: Durations | None,
) -> dict[str, Any]:
    """Return the complete body of an answer. `durations` are the times that it took, if known."""
    if _kind(spec) in (Kind.EMBED, Kind.EMBEDDINGS):
        return _embedded(spec, choices, usage, durations)
    (choice,) = choices
    reader = read_blocks(spec, choice)
    return answer_part(spec, _whole(reader)) | end_fields(choice.finish, usage, durations)


def tool_call(block: Block, number: int) -> dict[str, Any]:
    """Return a tool call that has the index `number` in the answer.

    A call that was cut has only the arguments that are complete.
    """
    arguments = block.arguments
    function = {
        "index": number,
        "name": block.name,
        "arguments": arguments if isinstance(arguments, dict) else {},
    }
    return {"id": f"call_{block.call}", "function": function}


def _whole(reader: BlockReader) -> Part:
    blocks = reader.blocks
    called = [block for block in blocks if block.kind is BlockKind.CALL]
    return Part(
        texts=[block.text for block in blocks if block.kind is BlockKind.TEXT],
        thoughts=[block.text for block in blocks if block.kind is BlockKind.REASONING],
        calls=[tool_call(block, number) for number, block in enumerate(called)],
        logprobs=[position for block in blocks for position in block.logprobs],
    )


def _embedded(
    spec: AnswerSpec,
    choices: Sequence[ChoiceTranscript],
    usage: Usage,
    durations: Durations | None,
) -> dict[str, Any]:
    embeddings = [floats_of(choice.text) for choice in choices]
    if _kind(spec) is Kind.EMBEDDINGS:
        return {"embedding": embeddings[0]}
    times = _times(durations)
    return {
        "model": _model(spec),
        "embeddings": embeddings,
        **{name: times[name] for name in ("total_duration", "load_duration") if name in times},
        "prompt_eval_count": usage.prompt_tokens,
    }


def _times(durations: Durations | None) -> dict[str, int]:
    """Return the fields with the measured durations, in nanoseconds."""
    if durations is None:
        return {}
    times = {
        "total_duration": durations.total_s,
        "load_duration": durations.load_s,
        "prompt_eval_duration": durations.prompt_s,
        "eval_duration": durations.output_s,
    }
    return {name: round(value * 1e9) for name, value in times.items() if value}


def _logprobs(positions: Sequence[PositionLogprobs]) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = chat_logprobs(positions)["content"]
    return content


def _kind(spec: AnswerSpec) -> Kind:
    return Kind((spec.request or {}).get("kind", Kind.CHAT))


def _model(spec: AnswerSpec) -> str:
    """Return the model's name as the client sent it. It may have a tag, such as `:latest`."""
    name: str = (spec.request or {}).get("model", spec.model)
    return name
