"""Builds message objects of /v1/messages, and the typed events of their streams. Pure."""

from typing import Any

import orjson

from api.http.errors import anthropic_error_body
from api.render.blocks import Added, Block, BlockEvent, BlockKind, BlockReader, Closed, Opened
from api.render.typed_stream import TypedEvent
from shared.errors import JobError
from shared.protocol.answers import AnswerSpec
from shared.protocol.ids import MESSAGE_PREFIX
from shared.protocol.results import FinishReason, Usage

_DELTAS = {
    BlockKind.TEXT: ("text_delta", "text"),
    BlockKind.REASONING: ("thinking_delta", "thinking"),
    BlockKind.CALL: ("input_json_delta", "partial_json"),
}
"""Type of the delta of each kind of block, and the field that has the text."""


def message_body(spec: AnswerSpec, reader: BlockReader, usage: Usage) -> dict[str, Any]:
    """Return the message with its complete content, which `reader` has read."""
    return {
        **message_head(spec),
        "content": [content_block(block) for block in reader.blocks],
        **stop_fields(reader),
        "usage": usage_body(usage),
    }


def message_head(spec: AnswerSpec) -> dict[str, Any]:
    """Return the fields of a message that are known before its content."""
    return {
        "id": f"{MESSAGE_PREFIX}{spec.id}",
        "type": "message",
        "role": "assistant",
        "model": spec.model,
    }


def content_block(block: Block, *, is_new: bool = False) -> dict[str, Any]:
    """Return the content block of a block. A new one is empty."""
    text = "" if is_new else block.text
    match block.kind:
        case BlockKind.TEXT:
            return {"type": "text", "text": text, "citations": None}
        case BlockKind.REASONING:
            return {"type": "thinking", "thinking": text, "signature": ""}
        case BlockKind.CALL:
            called = {"id": f"toolu_{block.call}", "name": block.name}
            return {"type": "tool_use", **called, "input": orjson.loads(text or "{}")}


def stop_fields(reader: BlockReader) -> dict[str, Any]:
    """Return the reason why the message ended, and the stop sequence that ended it."""
    has_called = any(block.kind is BlockKind.CALL for block in reader.blocks)
    reason = "tool_use" if has_called else "stop_sequence" if reader.stop else "end_turn"
    if reader.finish is FinishReason.LENGTH:
        reason = "max_tokens"
    return {"stop_reason": reason, "stop_sequence": reader.stop or None}


def usage_body(usage: Usage | None) -> dict[str, Any]:
    """Return token counts in Anthropic's format, in which cached tokens aren't input tokens."""
    usage = usage or Usage(prompt_tokens=0, completion_tokens=0)
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }


class MessageEvents:
    """Format of the events of one message."""

    is_numbered = False

    def __init__(self, spec: AnswerSpec) -> None:
        self._spec = spec

    def opening(self) -> list[TypedEvent]:
        """Return `message_start` and `ping`. The token counts aren't known yet, and are 0."""
        message = {
            **message_head(self._spec),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_body(None),
        }
        return [TypedEvent("message_start", {"message": message}), TypedEvent("ping", {})]

    def block(self, event: BlockEvent) -> list[TypedEvent]:
        """Return the event of a content block."""
        place = {"index": event.block.index}
        match event:
            case Opened():
                empty = content_block(event.block, is_new=True)
                return [TypedEvent("content_block_start", {**place, "content_block": empty})]
            case Added():
                kind, field = _DELTAS[event.block.kind]
                delta = {"type": kind, field: event.text}
                return [TypedEvent("content_block_delta", {**place, "delta": delta})]
            case Closed():
                return [TypedEvent("content_block_stop", place)]

    def closing(self, reader: BlockReader, usage: Usage) -> list[TypedEvent]:
        """Return `message_delta`, which has the token counts, and `message_stop`."""
        data = {"delta": stop_fields(reader), "usage": usage_body(usage)}
        return [TypedEvent("message_delta", data), TypedEvent("message_stop", {})]

    def failure(self, reader: BlockReader, error: JobError) -> TypedEvent:
        """Return an `error` event."""
        return TypedEvent("error", anthropic_error_body(error))

    def interruption(self, error: JobError) -> TypedEvent:
        """Return an `error` event."""
        return TypedEvent("error", anthropic_error_body(error))
