"""/v1/adapters: adapter management at run time.

`uploads.py` has POST /v1/adapters. `lora_adapters.py` has the routes that also exist in vLLM.
"""

from fastapi import APIRouter, Request

from api.access.model_rights import ModelNotFound, check_model
from api.adapters.inspection import Inspector
from api.adapters.management import MAY_MANAGE, READS, adapter_errors, read_request
from api.adapters.shown_adapters import ShownAdapters, staging_body
from api.http.errors import job_error_body
from api.http.guards import InAccess, Work, guarded
from api.http.validation import validate
from api.openapi.entries import query_parameters, takes
from api.pools.pools import pools_of
from api.pools.registered_base import registered_base
from api.pools.requested import part
from api.schema.adapters import (
    AdapterBody,
    AdapterDetails,
    AdapterList,
    BaseFit,
    DeletedAdapter,
    RankCount,
    RollBackQuery,
    StagedAdapter,
    ValidateAdapterRequest,
    ValidationBody,
)
from api.schema.errors import ErrorDetail
from shared.errors import JobFailed
from shared.protocol.access.rights import Scope
from shared.protocol.adapters import BaseModel as Base
from shared.store.adapters.fetch_progress import StagingProgress
from shared.store.adapters.inspections import Findings, Inspection
from shared.store.adapters.registry import Registry

router = APIRouter(tags=["adapters"], dependencies=[MAY_MANAGE])
UNNAMED = "unnamed"
"""Name of the adapter if a validation request has no lora_name."""


@router.get("/v1/adapters", summary="List adapters", responses=adapter_errors(403, 503))
@guarded(Work.SUMMARY, Scope.ADAPTERS)
async def list_adapters(request: Request, access: InAccess) -> AdapterList:
    """Return all versions of all adapters, with their size, their usage and their workers."""
    pools = pools_of(request).shown_to(request)
    lists = [
        await pool.part(ShownAdapters).all(access)
        for pool in pools
        if len(pools) == 1 or await pool.registry.base()
    ]
    return AdapterList(
        data=[body for each in lists for body in each.data],
        draining=[body for each in lists for body in each.draining],
    )


@router.get(
    "/v1/adapters/{name:path}", summary="Get an adapter", responses=adapter_errors(403, 404, 503)
)
@guarded(Work.READ, Scope.ADAPTERS)
async def get_adapter(
    name: str,
    access: InAccess,
    registry: Registry = part(Registry),
    progress: StagingProgress = part(StagingProgress),
    shown: ShownAdapters = part(ShownAdapters),
) -> AdapterDetails | StagedAdapter:
    """Return all versions of one adapter, with their size, their usage and their workers.

    While a worker fetches the adapter from a URL, `staging` has the progress.
    """
    await check_model(registry, access, name)
    base = await registered_base(registry)
    staging = staging_body(await progress.of(name))
    try:
        found = await shown.one(name, base)
    except JobFailed:
        if staging is None:
            raise
        return StagedAdapter(id=name, parent=base.name, staging=staging)
    return AdapterDetails(**dict(found), staging=staging)


@router.post(
    "/v1/adapters/validate",
    summary="Check an adapter without loading it",
    responses=adapter_errors(*READS),
    openapi_extra=takes(ValidateAdapterRequest, validate={"lora_path": "/adapters/sql-v2"}),
)
@guarded(Work.INSPECTION, Scope.ADAPTERS)
async def validate_adapter(
    request: Request,
    access: InAccess,
    registry: Registry = part(Registry),
    inspector: Inspector = part(Inspector),
) -> ValidationBody:
    """Check an adapter without loading it.

    The response lists the adapter's matched and unmatched tensors, its size and its ranks. If the
    adapter can't be loaded, `error` has the reason.
    """
    body = await read_request(request, ValidateAdapterRequest)
    if body.lora_name is not None:
        await check_model(registry, access, body.lora_name)
    base = await registered_base(registry)
    inspection = Inspection(name=body.lora_name or UNNAMED, source=body.lora_path)
    findings = await inspector.inspect(access.tenant, inspection)
    if findings.error and findings.source is None:  # no file was read
        raise JobFailed(findings.error)
    return _validation(findings, base, is_named=body.lora_name is not None)


@router.post(
    "/v1/adapters/{name:path}/rollback",
    summary="Roll back to a previous version",
    responses=adapter_errors(400, 403, 404, 409, 503),
    openapi_extra={"parameters": query_parameters(RollBackQuery)},
)
@guarded(Work.CHANGE, Scope.ADAPTERS)
async def roll_back_adapter(
    request: Request,
    name: str,
    access: InAccess,
    registry: Registry = part(Registry),
    shown: ShownAdapters = part(ShownAdapters),
) -> AdapterBody:
    """Make a previous version of an adapter the current version.

    Without `version`, repeated calls go further back. After the oldest version, the next call
    returns to the newest version.

    With `version`, the call makes exactly this version current, if it is one of the previous
    versions. If it is current already, nothing changes. The version that was current until then
    becomes the first of the previous versions.
    """
    query = validate(RollBackQuery, dict(request.query_params))
    await check_model(registry, access, name)
    base = await registered_base(registry)
    version = await registry.roll_back_adapter(name, query.version, by=access.actor)
    if version is None:
        raise ModelNotFound(name)
    return await shown.one(name, base)


@router.delete(
    "/v1/adapters/{name:path}", summary="Unload an adapter", responses=adapter_errors(403, 404, 503)
)
@guarded(Work.CHANGE, Scope.ADAPTERS)
async def delete_adapter(
    name: str, access: InAccess, registry: Registry = part(Registry)
) -> DeletedAdapter:
    """Unload an adapter, as POST /v1/unload_lora_adapter does."""
    await check_model(registry, access, name)
    if not await registry.unload_adapter(name, by=access.actor):
        raise ModelNotFound(name)
    return DeletedAdapter(id=name)


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
        base=BaseFit(
            name=base.name,
            version=base.version,
            trained_on=findings.trained_on,
            is_other=bool(adapter and adapter.other_base),
        ),
        version=adapter.version if adapter and is_named else None,
        digest=adapter.digest if adapter else None,
        rank=adapter.rank if adapter else None,
        bytes=adapter.num_bytes if adapter else None,
    )
