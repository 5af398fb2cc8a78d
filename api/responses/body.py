"""Builds response objects of /v1/responses. Pure."""

from collections.abc import Sequence
from typing import Any

from api.render.blocks import Block, BlockKind, BlockReader
from api.render.logprobs import chat_logprobs
from api.responses.tools import called_name
from shared.errors import JobError
from shared.protocol.answers import AnswerSpec
from shared.protocol.ids import RESPONSE_PREFIX, JobId
from shared.protocol.results import FinishReason, Usage

COMPLETED, INCOMPLETE, IN_PROGRESS = "completed", "incomplete", "in_progress"


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
    """Return the response object of a job. `output` are its output items."""
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
    """Return the response object with the complete output that `reader` has read."""
    output = output_items(spec, reader.blocks)
    return response_body(spec, status=status_of(reader.finish), output=output, usage=usage)


def status_of(finish: FinishReason | None) -> str:
    """Return the status of a response whose output ended with `finish`."""
    return INCOMPLETE if finish is FinishReason.LENGTH else COMPLETED


def output_items(spec: AnswerSpec, blocks: Sequence[Block]) -> list[dict[str, Any]]:
    """Return the output items of closed blocks. Only the last item can be incomplete."""
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
            call = {"call_id": f"call_{block.call}", **called_name(spec, block.name)}
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
    """Return the id of a block's item. The id is the same each time the answer is rendered."""
    prefix = {BlockKind.TEXT: "msg", BlockKind.REASONING: "rs", BlockKind.CALL: "fc"}[block.kind]
    return f"{prefix}_{spec.id}_{block.index}"


def usage_body(usage: Usage) -> dict[str, Any]:
    """Return token counts in the form of /v1/responses."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
