"""Typed events of a stream of /v1/messages. Pure."""

from api.http.errors import anthropic_error_body
from api.messages.body import content_block, message_head, signature_of, stop_fields, usage_body
from api.render.blocks import Added, BlockEvent, BlockKind, BlockReader, Closed, Opened
from api.render.typed_stream import TypedEvent
from shared.errors import JobError
from shared.protocol.answers import AnswerSpec
from shared.protocol.results import Usage

_DELTAS = {
    BlockKind.TEXT: ("text_delta", "text"),
    BlockKind.REASONING: ("thinking_delta", "thinking"),
    BlockKind.CALL: ("input_json_delta", "partial_json"),
}
"""For each kind of block: the type of its delta, and the field of the delta that has the text."""


class MessageEvents:
    """Renders the events of one message."""

    is_numbered = False

    def __init__(self, spec: AnswerSpec) -> None:
        self._spec = spec

    def opening(self, num_prompt_tokens: int) -> list[TypedEvent]:
        """Return `message_start` and `ping`.

        The input tokens in `message_start` include cached ones, because the number of cached tokens
        is known only at the end.
        """
        usage = Usage(prompt_tokens=num_prompt_tokens, completion_tokens=0)
        message = {
            **message_head(self._spec),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_body(usage),
        }
        return [TypedEvent("message_start", {"message": message}), TypedEvent("ping", {})]

    def block(self, event: BlockEvent) -> list[TypedEvent]:
        """Return the event that opens, extends or closes a content block."""
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
                stop = TypedEvent("content_block_stop", place)
                if event.block.kind is not BlockKind.REASONING:
                    return [stop]
                signed = {"type": "signature_delta", "signature": signature_of(event.block)}
                return [TypedEvent("content_block_delta", {**place, "delta": signed}), stop]

    def closing(self, reader: BlockReader, usage: Usage) -> list[TypedEvent]:
        """Return `message_delta`, with the token counts, and `message_stop`."""
        data = {"delta": stop_fields(reader), "usage": usage_body(usage)}
        return [TypedEvent("message_delta", data), TypedEvent("message_stop", {})]

    def failure(self, reader: BlockReader, error: JobError) -> TypedEvent:
        """Return an `error` event."""
        return TypedEvent("error", anthropic_error_body(error))

    def interruption(self, error: JobError) -> TypedEvent:
        """Return an `error` event."""
        return TypedEvent("error", anthropic_error_body(error))
