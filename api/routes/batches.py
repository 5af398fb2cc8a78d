"""/v1/batches: many requests that run while the pool has idle capacity."""

from fastapi import APIRouter, Request, Response

from api.batches.own_batches import TenantBatches, batch_body, batch_not_found
from api.files.own_files import TenantFiles
from api.http.body import read_json_object
from api.http.errors import json_response
from api.http.guards import InAccess, Work, guarded
from api.http.lists import PAGE_PARAMETERS, page_body, read_page_query
from api.http.validation import validate
from api.openapi.entries import MEANINGS, errors, takes
from api.pools.requested import part
from api.schema.batches import BatchBody, BatchList, CreateBatchRequest, DeletedBatch
from shared.errors import ErrorCode, failed
from shared.protocol.access.rights import Scope

router = APIRouter(tags=["batches"])
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
async def create_batch(
    request: Request,
    access: InAccess,
    files: TenantFiles = part(TenantFiles),
    batches: TenantBatches = part(TenantBatches),
) -> Response:
    """Run the requests of a file. They use idle capacity only, behind all other requests.

    A webhook of the operator can announce the end of the batch.
    """
    files.store()
    raw = await read_json_object(request)
    body = validate(CreateBatchRequest, raw)
    return json_response(batch_body(await batches.create(access, body)))


@router.get(
    "/v1/batches",
    summary="List batches",
    response_model=BatchList,
    responses=errors(400, 404, 503, meanings=_MEANINGS),
    openapi_extra={"parameters": PAGE_PARAMETERS},
)
@guarded(Work.LIST, Scope.INFERENCE)
async def list_batches(
    request: Request,
    access: InAccess,
    files: TenantFiles = part(TenantFiles),
    batches: TenantBatches = part(TenantBatches),
) -> Response:
    """Return the tenant's batches, newest first."""
    files.store()
    limit, after = read_page_query(request.query_params)
    page = await batches.records.page(access, limit=limit, after=after)
    if page is None:
        raise batch_not_found(after or "", param="after")
    return json_response(
        page_body([batch_body(batch) for batch in page.items], has_more=page.has_more)
    )


@router.get(
    "/v1/batches/{batch_id}",
    summary="Get a batch",
    response_model=BatchBody,
    responses=errors(404, 503, meanings=_MEANINGS),
)
@guarded(Work.READ, Scope.INFERENCE)
async def get_batch(
    batch_id: str, access: InAccess, batches: TenantBatches = part(TenantBatches)
) -> Response:
    """Return the status of a batch, the numbers of its requests, and its output files."""
    return json_response(batch_body(await batches.own(access, batch_id)))


@router.delete(
    "/v1/batches/{batch_id}",
    summary="Delete a batch",
    responses=errors(404, 409, 503, meanings=_MEANINGS),
)
@guarded(Work.RECORD, Scope.INFERENCE)
async def delete_batch(
    batch_id: str, access: InAccess, batches: TenantBatches = part(TenantBatches)
) -> DeletedBatch:
    """Delete the record of a batch that has ended. Its files are kept."""
    batch = await batches.own(access, batch_id)
    if not await batches.records.delete(batch):
        message = f"the batch {batch.id} hasn't ended; cancel it with POST /v1/batches/ID/cancel"
        raise failed(ErrorCode.BATCH_CONFLICT, message)
    return DeletedBatch(id=batch.id, deleted=True)


@router.post(
    "/v1/batches/{batch_id}/cancel",
    summary="Cancel a batch",
    response_model=BatchBody,
    responses=errors(404, 503, meanings=_MEANINGS),
)
@guarded(Work.RECORD, Scope.INFERENCE)
async def cancel_batch(
    batch_id: str, access: InAccess, batches: TenantBatches = part(TenantBatches)
) -> Response:
    """Cancel a batch: no more of its requests start.

    Requests that are already running still end, and the answers of the batch are kept.

    Cancelling a batch that has ended has no effect.
    """
    batch = await batches.own(access, batch_id)
    await batches.records.cancel(batch.id)
    return json_response(batch_body(await batches.own(access, batch_id)))
