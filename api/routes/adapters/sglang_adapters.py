"""SGLang's routes that load and unload adapters. Errors also have the fields of SGLang's format.

vLLM's routes are in `api/routes/adapters/lora_adapters.py`.
"""

from fastapi import APIRouter, Request

from api.access.model_rights import may_use
from api.adapters.loading import load
from api.adapters.management import MAY_MANAGE, READS, adapter_errors, read_request
from api.adapters.tensors import FIELD, received_tensors
from api.adapters.upload import AdapterUploads
from api.http.guards import InAccess, Work, guarded
from api.openapi.entries import takes
from api.pools.pools import pools_of
from api.pools.requested import InPool
from api.schema.sglang import LoadTensorsRequest, LoraUpdate, SglangLoadRequest, SglangUnloadRequest
from shared.errors import ErrorCode, failed
from shared.protocol.access.rights import Scope
from shared.protocol.adapter_files import upload_source

router = APIRouter(tags=["adapters"], dependencies=[MAY_MANAGE])
OF_TENSORS = "__tensor__"
"""Source of an adapter that was sent as tensors, as SGLang names it."""
UPSERT = "upsert"
"""Request field that allows an adapter to be replaced."""


@router.post(
    "/load_lora_adapter",
    summary="Load an adapter, in SGLang's format",
    responses=adapter_errors(*READS, 409),
    openapi_extra=takes(
        SglangLoadRequest, load={"lora_name": "sql-v1", "lora_path": "/adapters/sql-v1"}
    ),
)
@guarded(Work.INSPECTION, Scope.ADAPTERS)
async def load_adapter(request: Request, access: InAccess) -> LoraUpdate:
    """Load an adapter from a folder or another source, after a worker has read and checked it.

    Once the call returns, every server of the pool accepts the name.
    """
    body = await read_request(request, SglangLoadRequest)
    pool = await pools_of(request).of_model(request, body.lora_name)
    adapter = await load(
        *(pool, access, body.lora_name, body.lora_path),
        param="lora_path",
        is_pinned=body.pinned,
        replace=body.upsert,
        replace_field=UPSERT,
    )
    loaded = {adapter.name: body.lora_path}
    return LoraUpdate(loaded_adapters=loaded, weight_version=adapter.version)


@router.post(
    "/load_lora_adapter_from_tensors",
    summary="Send an adapter as tensors in JSON, in SGLang's format",
    responses=adapter_errors(*READS, 408, 409),
    openapi_extra=takes(LoadTensorsRequest),
)
@guarded(Work.INSPECTION, Scope.ADAPTERS)
async def load_tensors(request: Request, access: InAccess, pool: InPool) -> LoraUpdate:
    """Load an adapter from the base64 of a safetensors file.

    SGLang's own clients send Python pickles that refer to the trainer's GPU memory. Such
    pickles are refused. If the client calls safetensors.torch.save instead of
    MultiprocessingSerializer.serialize, the same request is accepted. Only
    `serialized_named_tensors` and `serialized_tensors` may be longer than the limit of other
    bodies.
    """
    uploads, max_rest = pool.part(AdapterUploads), request.app.state.max_body_bytes
    async with received_tensors(request, uploads, access.tenant, max_rest=max_rest) as received:
        body, upload = received
        adapter = await load(
            *(pool, access, body.lora_name, upload_source(upload)),
            param=FIELD,
            is_pinned=body.pinned,
            replace=body.upsert,
            replace_field=UPSERT,
        )
    loaded = {adapter.name: OF_TENSORS}
    return LoraUpdate(loaded_adapters=loaded, weight_version=adapter.version)


@router.post(
    "/unload_lora_adapter",
    summary="Unload an adapter, in SGLang's format",
    responses=adapter_errors(400, 403, 404, 413, 503),
    openapi_extra=takes(SglangUnloadRequest, unload={"lora_name": "sql-v1"}),
)
@guarded(Work.CHANGE, Scope.ADAPTERS)
async def unload_adapter(request: Request, access: InAccess) -> LoraUpdate:
    """Unload an adapter. New requests for it get status 404, and earlier ones are still answered.

    Repeated calls within an hour also succeed.
    """
    name = (await read_request(request, SglangUnloadRequest)).lora_name
    registry = (await pools_of(request).of_model(request, name)).registry
    if not await may_use(registry, access, name) or not await registry.unload_adapter(
        name, by=access.actor
    ):
        message = f"LoRA adapter {name[:200]!r} isn't loaded. GET /v1/models lists all adapters."
        raise failed(ErrorCode.MODEL_NOT_FOUND, message, "lora_name")
    return LoraUpdate(loaded_adapters={})
