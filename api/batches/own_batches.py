"""Finds, creates and describes batches on behalf of their tenants."""

import time
from dataclasses import asdict
from typing import Any

from api.files.own_files import TenantFiles
from api.schema.batches import CreateBatchRequest, window_h
from shared.errors import ErrorCode, JobFailed, failed, invalid_param
from shared.protocol.access.rights import Access
from shared.protocol.ids import BatchId
from shared.settings import ApiSettings
from shared.store.batches.batches import Batches, new_batch_id
from shared.store.batches.records import Batch, BatchStatus, Purpose

HOUR_S, DAY_S = 3600, 86_400
_TIMED = tuple(status for status in BatchStatus if status is not BatchStatus.VALIDATING)


class TenantBatches:
    """Batches of the tenants of one pool."""

    def __init__(self, batches: Batches, files: TenantFiles, settings: ApiSettings) -> None:
        self.records = batches
        self._files = files
        self._settings = settings

    async def own(self, access: Access, batch_id: str) -> Batch:
        """Return a batch that the client may see.

        Raises:
            JobFailed: there is no such batch, it belongs to another tenant, the client's key
                doesn't allow all its models, or the server keeps no files.
        """
        self._files.store()
        batch = await self.records.get(BatchId(batch_id))
        if batch is None or batch.tenant != access.tenant or not access.covers(batch.models):
            raise batch_not_found(batch_id)
        return batch

    async def create(self, access: Access, body: CreateBatchRequest) -> Batch:
        """Create a batch from the requests in a file. A control process runs it.

        Raises:
            JobFailed: the client has no such file, the purpose of the file isn't `batch`, or there
                are too many batches.
        """
        file = await self._files.own(access, body.input_file_id, param="input_file_id")
        if file.purpose is not Purpose.BATCH:
            raise invalid_param("input_file_id", f"has the purpose {file.purpose}, not batch")
        now = int(time.time())
        batch = Batch(
            id=new_batch_id(),
            tenant=access.tenant,
            models=access.models,
            key_id=access.key_id,
            books_pool=access.books_pool,
            weight=self._settings.weight_of(access.tenant),
            endpoint=body.endpoint,
            input_file=file.id,
            window=body.completion_window,
            created_s=now,
            expires_s=now + window_h(body.completion_window) * HOUR_S,
            metadata=body.metadata,
        )
        keep_s = batch.expires_s - now + self._settings.file_days * DAY_S
        max_tenant = self._settings.max_batches_tenant
        await self.records.add(batch, keep_s=keep_s, max_tenant=max_tenant)
        return batch


def batch_not_found(batch_id: str, *, param: str | None = None) -> JobFailed:
    """Return the error for a batch id that doesn't belong to the tenant."""
    message = f"the batch {batch_id[:100]!r} doesn't exist or has expired"
    return failed(ErrorCode.BATCH_NOT_FOUND, message, param)


def batch_body(batch: Batch) -> dict[str, Any]:
    """Return the body that describes a batch, in OpenAI's format."""
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
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        },
        "metadata": batch.metadata,
    }
