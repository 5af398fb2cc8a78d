"""Adapters at run time: /v1/adapters, and vLLM's routes to load and unload one."""

from typing import Any, TypeVar

from fastapi import APIRouter, Request
from pydantic import BaseModel

from api.adapters.admin import ADMIN_ONLY
from api.adapters.bodies import adapter_body, version_body
from api.adapters.inspection import inspect
from api.admission import model_not_found
from api.context import Context, InContext
from api.errors import job_error_body
from api.http.body import read_json_object, validate
from api.openapi import document
from api.openapi.responses import Responses, errors
from api.redis_guard import redis_guard
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
from api.schema.unserved_fields import without_neutral
from shared.errors import ErrorCode, JobError, JobFailed
from shared.store.inspections import Findings, Inspection
from shared.store.registry import Adapter, already_loaded
from shared.store.registry import BaseModel as Base

router = APIRouter(tags=["adapters"], dependencies=[ADMIN_ONLY])
M = TypeVar("M", bound=BaseModel)
UNNAMED = "unnamed"
"""What an adapter is called that is only looked at."""
_MEANINGS = {
    400: "the adapter can't be served exactly, or the request is malformed",
    403: "adapters aren't managed with this key, or this source isn't under an allowed root",
    404: "there is no such adapter or folder",
    409: "the name is taken, or the adapter's state forbids it",
    413: "the body is too large",
    503: "Redis or every worker is out of reach for now",
    504: "no worker has read it within the deadline",
}
_READS = 400, 403, 404, 413, 503, 504


def _errors(*statuses: int) -> Responses:
    return errors(*statuses, meanings=_MEANINGS)


def _takes(model: type[BaseModel], **examples: Any) -> dict[str, Any]:
    return document.takes(model, {name: {"value": value} for name, value in examples.items()})


@router.post(
    "/v1/load_lora_adapter",
    summary="Load an adapter, or replace one",
    responses=_errors(*_READS, 409),
    openapi_extra=_takes(
        LoadAdapterRequest,
        load={"lora_name": "sql", "lora_path": "/adapters/sql-v1"},
        replace={"lora_name": "sql", "lora_path": "/adapters/sql-v2", "load_inplace": True},
    ),
)
async def load_adapter(request: Request, context: InContext) -> AdapterBody:
    """A worker reads and checks its files, then all new requests find it, at once and everywhere.

    With `load_inplace` the name flips to the new weights. Requests that were accepted before are
    answered by the version that they were accepted for, also if its folder was written over.
    """
    body = await _read(request, context, LoadAdapterRequest)
    base = await _base(context)
    name = body.lora_name
    if name == base.name:
        raise JobFailed(_conflict(f"{name} is the base model's name", "lora_name"))
    if not body.load_inplace:
        async with redis_guard():
            if taken := await context.registry.adapter(name):
                raise JobFailed(already_loaded(name, taken.version))
    findings = await inspect(context, Inspection(name=name, source=body.lora_path))
    if findings.adapter is None:
        assert findings.error is not None  # it is that or an adapter
        raise JobFailed(findings.error)
    async with redis_guard():
        await context.registry.load_adapter(findings.adapter, replace=body.load_inplace)
    return await _adapter(context, name, base)


@router.post(
    "/v1/unload_lora_adapter",
    summary="Unload an adapter",
    responses=_errors(400, 403, 404, 413, 503),
    openapi_extra=_takes(UnloadAdapterRequest, unload={"lora_name": "sql"}),
)
async def unload_adapter(request: Request, context: InContext) -> DeletedAdapter:
    """New requests for it are a 404 at once; those that wait or run are answered, then its memory
    is freed. Repeating it does no harm.
    """
    return await _unload(context, (await _read(request, context, UnloadAdapterRequest)).lora_name)


@router.get("/v1/adapters", summary="List adapters and where they are", responses=_errors(403, 503))
async def list_adapters(context: InContext) -> AdapterList:
    """Versions, sizes, use, and the workers that hold them."""
    base = await _base(context)
    async with redis_guard():
        views = await context.adapter_views.adapters()
        retired = await context.adapter_views.retired()
        workers = await context.queue.workers()
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
    """What loading would find: tensors that match the base model and those that don't, bytes,
    ranks, and the reason if it would be refused.
    """
    body = await _read(request, context, ValidateAdapterRequest)
    base = await _base(context)
    asked = Inspection(name=body.lora_name or UNNAMED, source=body.lora_path)
    findings = await inspect(context, asked)
    if findings.error and findings.source is None:  # nothing was read
        raise JobFailed(findings.error)
    return _validation(findings, base, is_named=body.lora_name is not None)


@router.post(
    "/v1/adapters/{name:path}/rollback",
    summary="Go back to an adapter's previous version",
    responses=_errors(403, 404, 409, 503),
)
async def roll_back_adapter(name: str, context: InContext) -> AdapterBody:
    """Repeated, it goes further back, and after the oldest version comes the one it began with."""
    base = await _base(context)
    async with redis_guard():
        version = await context.registry.roll_back_adapter(name)
    if version is None:
        raise JobFailed(model_not_found(name))
    return await _adapter(context, name, base)


@router.delete(
    "/v1/adapters/{name:path}", summary="Unload an adapter", responses=_errors(403, 404, 503)
)
async def delete_adapter(name: str, context: InContext) -> DeletedAdapter:
    """The same as POST /v1/unload_lora_adapter."""
    return await _unload(context, name)


async def _read(request: Request, context: Context, model: type[M]) -> M:
    raw = await read_json_object(request, context.settings.max_body_bytes)
    # vLLM's own handles of adapters, which nobody else can know.
    return validate(model, without_neutral(raw, {"lora_int_id": ()}))


async def _base(context: Context) -> Base:
    async with redis_guard():
        base = await context.registry.base()
    if base is None:
        message = "no model is registered yet; try again"
        raise JobFailed(JobError(code=ErrorCode.UNAVAILABLE, message=message))
    return base


async def _unload(context: Context, name: str) -> DeletedAdapter:
    async with redis_guard():
        if not await context.registry.unload_adapter(name):
            raise JobFailed(model_not_found(name))
    return DeletedAdapter(id=name)


async def _adapter(context: Context, name: str, base: Base) -> AdapterBody:
    async with redis_guard():
        view = await context.adapter_views.adapter(name)
        workers = await context.queue.workers()
    if view is None:  # it was unloaded this very moment
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
