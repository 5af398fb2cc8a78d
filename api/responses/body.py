"""Builds response objects of /v1/responses, and the typed events of their streams. Pure."""

from collections.abc import Sequence
from typing import Any

from api.http.errors import job_error_body
from api.render.blocks import Added, Block, BlockEvent, BlockKind, BlockReader, Closed, Opened
from api.render.token_fields import chat_logprobs
from api.render.typed_stream import TypedEvent
from shared.errors import JobError
from shared.protocol.answers import AnswerSpec
from shared.protocol.ids import RESPONSE_PREFIX, JobId
from shared.protocol.results import FinishReason, Usage

COMPLETED, INCOMPLETE, IN_PROGRESS = "completed", "incomplete", "in_progress"
_TEXTS = {BlockKind.TEXT: "output_text", BlockKind.REASONING: "reasoning_text"}


def response_id(job_id: JobId) -> str:
    """Return the id of the response that a job generates."""
    return f"{RESPONSE_PREFIX}{job_id}"


def response_body(
    spec: AnswerSpec,
    *,
    status: str,
    output: Sequence[dict[str, Any]] = (),
    usage: Usage | None = None,
    error: JobError | None = None,
) -> dict[str, Any]:
    """Return the response object in a status."""
    is_incomplete = status == INCOMPLETE
    request = spec.request or {}
    return {
        "id": response_id(spec.id),
        "object": "response",
        "created_at": spec.created_s,
        "status": status,
        "error": {"code": error.code, "message": error.message} if error else None,
        "incomplete_details": {"reason": "max_output_tokens"} if is_incomplete else None,
        **request.get("echo", {}),
        "model": spec.model,
        "output": list(output),
        "usage": usage_body(usage) if usage else None,
        "service_tier": spec.service_tier,
        "system_fingerprint": spec.fingerprint,
        "weight_version": spec.version,
    }


def finished_body(spec: AnswerSpec, reader: BlockReader, usage: Usage) -> dict[str, Any]:
    """Return the response object with the complete output, which `reader` has read."""
    output = output_items(spec, reader.blocks)
    return response_body(spec, status=status_of(reader.finish), output=output, usage=usage)


def status_of(finish: FinishReason | None) -> str:
    """Return the status of a response whose output ended with `finish`."""
    return INCOMPLETE if finish is FinishReason.LENGTH else COMPLETED


def output_items(spec: AnswerSpec, blocks: Sequence[Block]) -> list[dict[str, Any]]:
    """Return the output items of closed blocks. Only the last one can be incomplete."""
    return [item(spec, block, status_of(block.finish)) for block in blocks]


def item(spec: AnswerSpec, block: Block, status: str, *, is_new: bool = False) -> dict[str, Any]:
    """Return the output item of a block. A new item has no content yet."""
    item_id = item_id_of(spec, block)
    match block.kind:
        case BlockKind.TEXT:
            content = [] if is_new else [part(spec, block)]
            fields = {"type": "message", "role": "assistant", "content": content}
        case BlockKind.REASONING:
            content = [] if is_new else [part(spec, block)]
            fields = {"type": "reasoning", "summary": [], "content": content}
        case BlockKind.CALL:
            call = {"call_id": f"call_{block.call}", "name": block.name}
            fields = {"type": "function_call", **call, "arguments": "" if is_new else block.text}
    return {"id": item_id, **fields, "status": status}


def part(spec: AnswerSpec, block: Block, *, is_new: bool = False) -> dict[str, Any]:
    """Return the only content part of a message or of reasoning."""
    text = "" if is_new else block.text
    if block.kind is BlockKind.REASONING:
        return {"type": "reasoning_text", "text": text}
    logprobs = [] if is_new or not spec.has_logprobs else chat_logprobs(block.logprobs)["content"]
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def item_id_of(spec: AnswerSpec, block: Block) -> str:
    """Return the id of a block's item, which is the same each time the answer is rendered."""
    prefix = {BlockKind.TEXT: "msg", BlockKind.REASONING: "rs", BlockKind.CALL: "fc"}[block.kind]
    return f"{prefix}_{spec.id}_{block.index}"


def usage_body(usage: Usage) -> dict[str, Any]:
    """Return token counts in the form of /v1/responses."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


class ResponseEvents:
    """Format of the events of one response."""

    is_numbered = True

    def __init__(self, spec: AnswerSpec) -> None:
        self._spec = spec

    def opening(self) -> list[TypedEvent]:
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

        By OpenAI's reference, its fields are those of the error. OpenAI's clients raise an error
        only for a field `error`; without it, the answer would seem to end.
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
            data = {**place, "name": block.name, "arguments": block.text}
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
