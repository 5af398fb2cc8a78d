"""vLLM's routes that load and unload adapters. Statuses and texts are vLLM's: clients check them.

Lorikeet's own routes for adapters are in `api/routes/adapters/adapters.py`.
"""

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from api.access.model_rights import may_use
from api.adapters.loading import load
from api.adapters.management import MAY_MANAGE, READS, adapter_errors, read_request
from api.http.guards import InAccess, Work, guarded
from api.openapi.entries import Responses, takes
from api.pools.pools import pools_of
from api.schema.adapters import LoadAdapterRequest, UnloadAdapterRequest
from shared.errors import ErrorCode, JobError, JobFailed, failed
from shared.protocol.access.rights import Scope

router = APIRouter(tags=["adapters"], dependencies=[MAY_MANAGE])


def _responses(*statuses: int) -> Responses:
    success = {
        "description": "A text that begins with `Success:`.",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
    return {200: success, **adapter_errors(*statuses)}


@router.post(
    "/v1/load_lora_adapter",
    summary="Load or replace an adapter",
    response_class=Response,  # without a media type, so that errors are documented as JSON
    responses=_responses(*READS, 409),
    openapi_extra=takes(
        LoadAdapterRequest,
        load={"lora_name": "sql", "lora_path": "/adapters/sql-v1"},
        replace={"lora_name": "sql", "lora_path": "/adapters/sql-v2", "load_inplace": True},
    ),
)
@guarded(Work.INSPECTION, Scope.ADAPTERS)
async def load_adapter(request: Request, access: InAccess) -> Response:
    """Load an adapter, after a worker has read and checked its files.

    Once the call returns, every server of the pool accepts the name. GET /v1/adapters/{name} has
    the version.

    With `load_inplace`, new requests for the name use the new weights. Earlier requests keep the
    version for which they were accepted, even if the folder of that version is overwritten.
    """
    body = await read_request(request, LoadAdapterRequest)
    name = body.lora_name
    pool = await pools_of(request).of_model(request, name)
    try:
        await load(
            *(pool, access, name, body.lora_path),
            param="lora_path",
            is_pinned=body.pinned,
            replace=body.load_inplace,
            replace_field="load_inplace",
        )
    except JobFailed as failure:
        raise JobFailed(_in_vllms_words(failure.error, body.lora_path)) from None
    return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")


@router.post(
    "/v1/unload_lora_adapter",
    summary="Unload an adapter",
    response_class=Response,
    responses=_responses(400, 403, 404, 413, 503),
    openapi_extra=takes(UnloadAdapterRequest, unload={"lora_name": "sql"}),
)
@guarded(Work.CHANGE, Scope.ADAPTERS)
async def unload_adapter(request: Request, access: InAccess) -> Response:
    """Unload an adapter. New requests for it get status 404.

    Waiting and running requests are still answered. Then the memory of the adapter is freed.
    Repeated calls within an hour also succeed.
    """
    name = (await read_request(request, UnloadAdapterRequest)).lora_name
    registry = (await pools_of(request).of_model(request, name)).registry
    if not await may_use(registry, access, name) or not await registry.unload_adapter(
        name, by=access.actor
    ):
        message = f"The lora adapter '{name[:200]}' cannot be found. "
        message += "GET /v1/models lists all adapters."
        raise failed(ErrorCode.MODEL_NOT_FOUND, message, "lora_name")
    return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")


def _in_vllms_words(error: JobError, path: str) -> JobError:
    if error.code is not ErrorCode.SOURCE_NOT_FOUND:
        return error
    message = f"No adapter found for {path[:200]}: {error.message}"
    return JobError(code=error.code, message=message, param=error.param)
