"""Typed events of a stream of /v1/responses. Pure."""

from typing import Any

from api.http.errors import job_error_body
from api.render.blocks import Added, Block, BlockEvent, BlockKind, BlockReader, Closed, Opened
from api.render.logprobs import chat_logprobs
from api.render.typed_stream import TypedEvent
from api.responses.body import (
    IN_PROGRESS,
    finished_body,
    item,
    item_id_of,
    output_items,
    part,
    response_body,
    status_of,
)
from api.responses.tools import called_name
from shared.errors import JobError
from shared.protocol.answers import AnswerSpec
from shared.protocol.results import Usage

_TEXTS = {BlockKind.TEXT: "output_text", BlockKind.REASONING: "reasoning_text"}


class ResponseEvents:
    """Renders the events of one response."""

    is_numbered = True

    def __init__(self, spec: AnswerSpec) -> None:
        self._spec = spec

    def opening(self, num_prompt_tokens: int) -> list[TypedEvent]:
        """Return `response.created` and `response.in_progress`."""
        body = response_body(self._spec, status=IN_PROGRESS)
        names = ("response.created", "response.in_progress")
        return [TypedEvent(name, {"response": body}) for name in names]

    def block(self, event: BlockEvent) -> list[TypedEvent]:
        """Return the events of an output item and of its content part."""
        match event:
            case Opened():
                return self._opened(event.block)
            case Added():
                return [self._added(event)]
            case Closed():
                return self._closed(event.block)

    def closing(self, reader: BlockReader, usage: Usage) -> list[TypedEvent]:
        """Return `response.completed` or `response.incomplete`."""
        body = finished_body(self._spec, reader, usage)
        return [TypedEvent(f"response.{status_of(reader.finish)}", {"response": body})]

    def failure(self, reader: BlockReader, error: JobError) -> TypedEvent:
        """Return `response.failed` with the items that are complete."""
        output = output_items(self._spec, [each for each in reader.blocks if each.is_closed])
        body = response_body(self._spec, status="failed", output=output, error=error)
        return TypedEvent("response.failed", {"response": body})

    def interruption(self, error: JobError) -> TypedEvent:
        """Return an `error` event.

        As in OpenAI's reference, it has the fields of the error. It also has a field `error`,
        because OpenAI's clients raise an error only if this field is there. Otherwise the answer
        would seem to end normally.
        """
        fields = {"code": error.code, "message": error.message, "param": error.param}
        return TypedEvent("error", {**fields, **job_error_body(error)})

    def _opened(self, block: Block) -> list[TypedEvent]:
        new = item(self._spec, block, IN_PROGRESS, is_new=True)
        place = {"output_index": block.index}
        events = [TypedEvent("response.output_item.added", {**place, "item": new})]
        if block.kind in _TEXTS:
            empty = part(self._spec, block, is_new=True)
            data = {**self._place(block), "part": empty}
            events.append(TypedEvent("response.content_part.added", data))
        return events

    def _added(self, event: Added) -> TypedEvent:
        data = {**self._place(event.block), "delta": event.text}
        if event.block.kind is BlockKind.TEXT:
            has_logprobs = self._spec.has_logprobs
            data["logprobs"] = chat_logprobs(event.logprobs)["content"] if has_logprobs else []
        kind = _TEXTS.get(event.block.kind, "function_call_arguments")
        return TypedEvent(f"response.{kind}.delta", data)

    def _closed(self, block: Block) -> list[TypedEvent]:
        done = item(self._spec, block, status_of(block.finish))
        item_done = TypedEvent(
            "response.output_item.done", {"output_index": block.index, "item": done}
        )
        place = self._place(block)
        if block.kind is BlockKind.CALL:
            data = {**place, **called_name(self._spec, block.name), "arguments": block.text}
            return [TypedEvent("response.function_call_arguments.done", data), item_done]
        whole = part(self._spec, block)
        data = {**place, "text": block.text}
        if block.kind is BlockKind.TEXT:
            data["logprobs"] = whole["logprobs"]
        return [
            TypedEvent(f"response.{_TEXTS[block.kind]}.done", data),
            TypedEvent("response.content_part.done", {**place, "part": whole}),
            item_done,
        ]

    def _place(self, block: Block) -> dict[str, Any]:
        place = {"item_id": item_id_of(self._spec, block), "output_index": block.index}
        return place if block.kind is BlockKind.CALL else {**place, "content_index": 0}
