"""/v1/adapters and vLLM's load and unload routes: adapter management at run time."""

from typing import Any, TypeVar

from fastapi import APIRouter, Request
from pydantic import BaseModel

from api.adapters.admin import ADMIN_ONLY
from api.adapters.bodies import adapter_body, version_body
from api.adapters.inspection import inspect
from api.admission import model_not_found
from api.context import Context, InContext
from api.errors import job_error_body
from api.http.body import read_json_object
from api.http.validation import validate
from api.openapi import document
from api.openapi.responses import Responses, errors
from api.requests.unsupported_fields import drop_unsupported
from api.schema.adapters import (
    AdapterBody,
    AdapterList,
    BaseFit,
    DeletedAdapter,
    LoadAdapterRequest,
    RankCount,
    UnloadAdapterRequest,
    ValidateAdapterRequest,
    ValidationBody,
)
from api.schema.errors import ErrorDetail
from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol.adapters import Adapter
from shared.protocol.adapters import BaseModel as Base
from shared.store.inspections import Findings, Inspection
from shared.store.registry import already_loaded

router = APIRouter(tags=["adapters"], dependencies=[ADMIN_ONLY])
M = TypeVar("M", bound=BaseModel)
UNNAMED = "unnamed"
"""Name of the adapter if a validation request has no lora_name."""
_MEANINGS = {
    400: "The request is malformed, or the adapter can't be served exactly.",
    403: "The key may not manage adapters, or the source isn't under an --adapter-root.",
    404: "The adapter or its source doesn't exist.",
    409: "The name is taken, or the adapter's state doesn't allow the change.",
    413: "The body is too large.",
    503: "Redis or every worker is unavailable at present.",
    504: "No worker has read the adapter within the deadline.",
}
_READS = 400, 403, 404, 413, 503, 504


def _errors(*statuses: int) -> Responses:
    return errors(*statuses, meanings=_MEANINGS)


def _takes(model: type[BaseModel], **examples: Any) -> dict[str, Any]:
    return document.takes(model, {name: {"value": value} for name, value in examples.items()})


@router.post(
    "/v1/load_lora_adapter",
    summary="Load or replace an adapter",
    responses=_errors(*_READS, 409),
    openapi_extra=_takes(
        LoadAdapterRequest,
        load={"lora_name": "sql", "lora_path": "/adapters/sql-v1"},
        replace={"lora_name": "sql", "lora_path": "/adapters/sql-v2", "load_inplace": True},
    ),
)
async def load_adapter(request: Request, context: InContext) -> AdapterBody:
    """Load an adapter, after a worker has read and checked its files.

    Once the call returns, every server of the pool accepts the name.

    With `load_inplace`, new requests for the name use the new weights. Earlier requests keep the
    version for which they were accepted, even if the folder of that version is overwritten.
    """
    body = await _read(request, context, LoadAdapterRequest)
    base = await _base(context)
    name = body.lora_name
    if name == base.name:
        raise JobFailed(
            _conflict(f"{name} is the name of the base model; choose another one", "lora_name")
        )
    if not body.load_inplace and (taken := await context.registry.adapter(name)):
        raise JobFailed(already_loaded(name, taken.version))
    findings = await inspect(context, Inspection(name=name, source=body.lora_path))
    if findings.adapter is None:
        assert findings.error is not None  # findings have either an adapter or an error
        raise JobFailed(findings.error)
    await context.registry.load_adapter(findings.adapter, replace=body.load_inplace)
    return await _adapter(context, name, base)


@router.post(
    "/v1/unload_lora_adapter",
    summary="Unload an adapter",
    responses=_errors(400, 403, 404, 413, 503),
    openapi_extra=_takes(UnloadAdapterRequest, unload={"lora_name": "sql"}),
)
async def unload_adapter(request: Request, context: InContext) -> DeletedAdapter:
    """Unload an adapter. New requests for it get status 404.

    Waiting and running requests are still answered. Then the memory of the adapter is freed.
    Repeated calls within an hour also succeed.
    """
    return await _unload(context, (await _read(request, context, UnloadAdapterRequest)).lora_name)


@router.get("/v1/adapters", summary="List adapters", responses=_errors(403, 503))
async def list_adapters(context: InContext) -> AdapterList:
    """Return all versions of all adapters, with their size, their usage and their workers."""
    base = await _base(context)
    views = await context.adapter_views.adapters()
    retired = await context.adapter_views.retired()
    workers = await context.views.workers()
    return AdapterList(
        data=[adapter_body(view, base, workers) for view in views],
        draining=[version_body(view, workers) for view in retired],
    )


@router.post(
    "/v1/adapters/validate",
    summary="Check an adapter without loading it",
    responses=_errors(*_READS),
    openapi_extra=_takes(ValidateAdapterRequest, validate={"lora_path": "/adapters/sql-v2"}),
)
async def validate_adapter(request: Request, context: InContext) -> ValidationBody:
    """Check an adapter without loading it.

    The response lists the adapter's matched and unmatched tensors, its size and its ranks. If the
    adapter can't be loaded, `error` has the reason.
    """
    body = await _read(request, context, ValidateAdapterRequest)
    base = await _base(context)
    inspection = Inspection(name=body.lora_name or UNNAMED, source=body.lora_path)
    findings = await inspect(context, inspection)
    if findings.error and findings.source is None:  # no file was read
        raise JobFailed(findings.error)
    return _validation(findings, base, is_named=body.lora_name is not None)


@router.post(
    "/v1/adapters/{name:path}/rollback",
    summary="Roll back to the previous version",
    responses=_errors(403, 404, 409, 503),
)
async def roll_back_adapter(name: str, context: InContext) -> AdapterBody:
    """Make the previous version of an adapter the current version.

    Repeated calls go further back. After the oldest version, the next call returns to
    the newest version.
    """
    base = await _base(context)
    version = await context.registry.roll_back_adapter(name)
    if version is None:
        raise JobFailed(model_not_found(name))
    return await _adapter(context, name, base)


@router.delete(
    "/v1/adapters/{name:path}", summary="Unload an adapter", responses=_errors(403, 404, 503)
)
async def delete_adapter(name: str, context: InContext) -> DeletedAdapter:
    """Unload an adapter. Equivalent to POST /v1/unload_lora_adapter."""
    return await _unload(context, name)


async def _read(request: Request, context: Context, model: type[M]) -> M:
    raw = await read_json_object(request, context.settings.max_body_bytes)
    # lora_int_id is vLLM's internal id of an adapter, which has no meaning here.
    return validate(model, drop_unsupported(raw, {"lora_int_id": ()}))


async def _base(context: Context) -> Base:
    base = await context.registry.base()
    if base is None:
        message = "no worker has registered a base model; start a worker, or try again soon"
        raise JobFailed(JobError(code=ErrorCode.UNAVAILABLE, message=message))
    return base


async def _unload(context: Context, name: str) -> DeletedAdapter:
    if not await context.registry.unload_adapter(name):
        raise JobFailed(model_not_found(name))
    return DeletedAdapter(id=name)


async def _adapter(context: Context, name: str, base: Base) -> AdapterBody:
    view = await context.adapter_views.adapter(name)
    workers = await context.views.workers()
    if view is None:  # another client has just unloaded the adapter
        raise JobFailed(model_not_found(name))
    return adapter_body(view, base, workers)


def _validation(findings: Findings, base: Base, *, is_named: bool) -> ValidationBody:
    adapter, error = findings.adapter, findings.error
    return ValidationBody(
        valid=adapter is not None,
        error=ErrorDetail(**job_error_body(error)["error"]) if error else None,
        source=findings.source,
        ranks=[RankCount(rank=rank, modules=count) for rank, count in findings.ranks],
        num_tensors=findings.num_tensors,
        num_unmatched=findings.num_unmatched,
        matched=list(findings.matched),
        unmatched=list(findings.unmatched),
        base=BaseFit(name=base.name, version=base.version, trained_on=findings.trained_on),
        **(_facts(adapter, is_named=is_named) if adapter else {}),
    )


def _facts(adapter: Adapter, *, is_named: bool) -> dict[str, Any]:
    return {
        "version": adapter.version if is_named else None,
        "digest": adapter.digest,
        "rank": adapter.rank,
        "bytes": adapter.num_bytes,
    }


def _conflict(message: str, param: str) -> JobError:
    return JobError(code=ErrorCode.ADAPTER_CONFLICT, message=message, param=param)
