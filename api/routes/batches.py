"""/v1/batches: many requests that run while the pool has idle capacity."""

import time

from fastapi import APIRouter, Request, Response

from api.batches.bodies import batch_body
from api.batches.own_batches import batch_not_found, own_batch
from api.batches.schema import (
    BatchBody,
    BatchList,
    CreateBatchRequest,
    DeletedBatch,
    window_h,
)
from api.files.bodies import page_body
from api.files.list_query import PAGE_PARAMETERS, read_page_query
from api.files.own_files import file_store, own_file
from api.http.body import read_json_object
from api.http.errors import json_response
from api.http.guards import Work, guarded
from api.http.validation import validate
from api.openapi.document import takes
from api.openapi.responses import MEANINGS, errors
from api.pools.context import InAccess, InContext
from shared.errors import ErrorCode, JobError, JobFailed, invalid_param
from shared.protocol.access.rights import Scope
from shared.store.batches.batches import new_batch_id
from shared.store.batches.records import Batch, Purpose

router = APIRouter(tags=["batches"])
HOUR_S, DAY_S = 3600, 86_400
_MEANINGS = {
    **MEANINGS,
    400: "The request is invalid, or the tenant has too many batches.",
    404: "The batch or file doesn't exist, or the server keeps no files.",
    409: "The batch hasn't ended.",
    429: "The pool or the tenant has too many batches that haven't ended.",
}


@router.post(
    "/v1/batches",
    summary="Create a batch",
    response_model=BatchBody,
    responses=errors(400, 404, 413, 429, 503, meanings=_MEANINGS),
    openapi_extra=takes(CreateBatchRequest),
)
@guarded(Work.BATCH, Scope.INFERENCE)
async def create_batch(request: Request, context: InContext, access: InAccess) -> Response:
    """Run the requests of a file. They use idle capacity only, behind all other requests.

    A webhook of the operator can announce the end of the batch.
    """
    file_store(context)
    raw = await read_json_object(request, context.settings.max_body_bytes)
    body = validate(CreateBatchRequest, raw)
    file = await own_file(context, access, body.input_file_id, param="input_file_id")
    if file.purpose is not Purpose.BATCH:
        raise invalid_param("input_file_id", f"has the purpose {file.purpose}, not batch")
    now = int(time.time())
    batch = Batch(
        id=new_batch_id(),
        tenant=access.tenant,
        models=access.models,
        key_id=access.key_id,
        books_pool=access.books_pool,
        weight=context.settings.weight_by_tenant.get(access.tenant, 1.0),
        endpoint=body.endpoint,
        input_file=file.id,
        window=body.completion_window,
        created_s=now,
        expires_s=now + window_h(body.completion_window) * HOUR_S,
        metadata=body.metadata,
    )
    keep_s = batch.expires_s - now + context.settings.file_days * DAY_S
    await context.batches.add(batch, keep_s=keep_s, max_tenant=context.settings.max_batches_tenant)
    return json_response(batch_body(batch))


@router.get(
    "/v1/batches",
    summary="List batches",
    response_model=BatchList,
    responses=errors(400, 404, 503, meanings=_MEANINGS),
    openapi_extra={"parameters": PAGE_PARAMETERS},
)
@guarded(Work.LIST, Scope.INFERENCE)
async def list_batches(request: Request, context: InContext, access: InAccess) -> Response:
    """Return the tenant's batches, newest first."""
    file_store(context)
    wanted = read_page_query(request.query_params)
    page = await context.batches.page(access, limit=wanted.limit, after=wanted.after)
    if page is None:
        raise JobFailed(batch_not_found(wanted.after or "", param="after"))
    return json_response(page_body([batch_body(batch) for batch in page.items], page))


@router.get(
    "/v1/batches/{batch_id}",
    summary="Get a batch",
    response_model=BatchBody,
    responses=errors(404, 503, meanings=_MEANINGS),
)
@guarded(Work.READ, Scope.INFERENCE)
async def get_batch(batch_id: str, context: InContext, access: InAccess) -> Response:
    """Return the status of a batch, the numbers of its requests, and its output files."""
    return json_response(batch_body(await own_batch(context, access, batch_id)))


@router.delete(
    "/v1/batches/{batch_id}",
    summary="Delete a batch",
    responses=errors(404, 409, 503, meanings=_MEANINGS),
)
@guarded(Work.RECORD, Scope.INFERENCE)
async def delete_batch(batch_id: str, context: InContext, access: InAccess) -> DeletedBatch:
    """Delete the record of a batch that has ended. Its files are kept."""
    batch = await own_batch(context, access, batch_id)
    if not await context.batches.delete(batch):
        message = f"the batch {batch.id} hasn't ended; cancel it with POST /v1/batches/ID/cancel"
        raise JobFailed(JobError(code=ErrorCode.BATCH_CONFLICT, message=message))
    return DeletedBatch(id=batch.id, deleted=True)


@router.post(
    "/v1/batches/{batch_id}/cancel",
    summary="Cancel a batch",
    response_model=BatchBody,
    responses=errors(404, 503, meanings=_MEANINGS),
)
@guarded(Work.RECORD, Scope.INFERENCE)
async def cancel_batch(batch_id: str, context: InContext, access: InAccess) -> Response:
    """Start no more requests of a batch. Those that run still end, and their answers are kept.

    Cancelling a batch that has ended has no effect.
    """
    batch = await own_batch(context, access, batch_id)
    await context.batches.cancel(batch.id)
    return json_response(batch_body(await own_batch(context, access, batch_id)))
