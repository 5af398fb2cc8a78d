"""Bodies that describe batches, in OpenAI's format."""

from dataclasses import asdict
from typing import Any

from shared.store.batches.records import Batch, BatchStatus

_TIMED = tuple(status for status in BatchStatus if status is not BatchStatus.VALIDATING)


def batch_body(batch: Batch) -> dict[str, Any]:
    """Return the body that describes a batch."""
    errors = [asdict(error) for error in batch.errors]
    usage = batch.usage
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": {"object": "list", "data": errors} if errors else None,
        "input_file_id": batch.input_file,
        "completion_window": batch.window,
        "status": batch.status.value,
        "output_file_id": batch.output_file,
        "error_file_id": batch.error_file,
        "created_at": batch.created_s,
        "expires_at": batch.expires_s,
        **{f"{status.value}_at": batch.times.get(status) for status in _TIMED},
        "request_counts": {
            "total": batch.num_requests,
            "completed": batch.num_completed,
            "failed": batch.num_failed,
        },
        "usage": {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_tokens},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        },
        "metadata": batch.metadata,
    }
