"""Builds message objects of /v1/messages. Pure."""

import hashlib
from base64 import b64encode
from typing import Any

from api.render.blocks import Block, BlockKind, BlockReader
from shared.protocol.answers import AnswerSpec
from shared.protocol.ids import MESSAGE_PREFIX
from shared.protocol.results import FinishReason, Usage


def message_body(spec: AnswerSpec, reader: BlockReader, usage: Usage) -> dict[str, Any]:
    """Return the message with the complete content that `reader` has read."""
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
    """Return the content block that shows `block`. With `is_new`, its content is empty."""
    text = "" if is_new else block.text
    match block.kind:
        case BlockKind.TEXT:
            return {"type": "text", "text": text, "citations": None}
        case BlockKind.REASONING:
            signature = "" if is_new else signature_of(block)
            return {"type": "thinking", "thinking": text, "signature": signature}
        case BlockKind.CALL:
            called = {"id": f"toolu_{block.call}", "name": block.name}
            # Anthropic's clients read the arguments of a cut call in a stream in this way, too.
            return {"type": "tool_use", **called, "input": {} if is_new else block.arguments}


def signature_of(block: Block) -> str:
    """Return a hash of the reasoning in a block.

    Clients send the hash back in later requests, where it isn't checked.
    """
    return b64encode(hashlib.sha256(block.text.encode()).digest()).decode()


def stop_fields(reader: BlockReader) -> dict[str, Any]:
    """Return the reason why the message ended, and the stop sequence that ended it."""
    has_called = any(block.kind is BlockKind.CALL for block in reader.blocks)
    reason = "tool_use" if has_called else "stop_sequence" if reader.stop else "end_turn"
    if reader.finish is FinishReason.LENGTH:
        reason = "max_tokens"
    return {"stop_reason": reason, "stop_sequence": reader.stop or None}


def usage_body(usage: Usage) -> dict[str, Any]:
    """Return token counts in Anthropic's format, whose input tokens exclude cached tokens."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }
