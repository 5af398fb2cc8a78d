"""Finds batches on behalf of their tenants."""

from api.files.own_files import file_store
from api.pools.context import Context
from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol.access.rights import Access
from shared.store.batches.records import Batch, BatchId


async def own_batch(context: Context, access: Access, batch_id: str) -> Batch:
    """Return a batch that the client may see.

    Raises:
        JobFailed: there is no such batch, or it belongs to another tenant or a key with rights to
            other models, or the server keeps no files.
    """
    file_store(context)
    batch = await context.batches.get(BatchId(batch_id))
    if batch is None or batch.tenant != access.tenant or not access.covers(batch.models):
        raise JobFailed(batch_not_found(batch_id))
    return batch


def batch_not_found(batch_id: str, *, param: str | None = None) -> JobError:
    """Return the error for the id of a batch that the tenant doesn't have."""
    message = f"the batch {batch_id[:100]!r} doesn't exist or has expired"
    return JobError(code=ErrorCode.BATCH_NOT_FOUND, message=message, param=param)
