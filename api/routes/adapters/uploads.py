"""POST /v1/adapters, and /pause and /resume for trainers that update an adapter in use."""

from typing import Any

from fastapi import APIRouter, Request

from api.access.model_rights import check_model
from api.adapters.inspection import Inspector
from api.adapters.management import MAY_MANAGE, READS, adapter_errors
from api.adapters.new_versions import NewVersions
from api.adapters.shown_adapters import ShownAdapters
from api.adapters.upload import AdapterUploads
from api.http.guards import InAccess, Work, guarded
from api.http.validation import validate
from api.openapi.entries import query_parameters, takes_adapter
from api.pools.pool import Pool
from api.pools.pools import pools_of
from api.pools.registered_base import registered_base
from api.schema.adapters import AdapterBody, PauseQuery, UploadAdapterQuery
from shared.errors import ErrorCode, failed, invalid_value
from shared.protocol.access.rights import Access, Scope
from shared.protocol.adapter_files import upload_source
from shared.store.adapters.refusals import already_loaded

router = APIRouter(tags=["adapters"], dependencies=[MAY_MANAGE])
NOT_PAUSED = (
    "nothing pauses: running requests keep the version of the adapter that they were accepted for, "
    "and adapters can be updated at any time"
)


@router.post(
    "/v1/adapters",
    summary="Send an adapter",
    responses=adapter_errors(*READS, 408, 409, 415),
    openapi_extra=takes_adapter(UploadAdapterQuery),
)
@guarded(Work.ADAPTER_UPLOAD, Scope.ADAPTERS)
async def upload_adapter(request: Request, access: InAccess) -> AdapterBody:
    """Make the safetensors file in the body a new version of an adapter.

    With `source`, the adapter is loaded from there, and there is no body. A worker checks the files
    first. Once the call returns, new requests for the name use the new version, on every server of
    the pool. Earlier requests keep the version for which they were accepted, and none of them
    pauses. The same content has the same version.

    With `candidate=true`, the adapter is tried out alongside the current version instead, and with
    `canary=10`, it answers 10 % of the requests. With `replace=false`, a name that is taken is
    refused.
    """
    query = validate(UploadAdapterQuery, dict(request.query_params))
    pool = await pools_of(request).of_model(request, query.name)
    await check_model(pool.registry, access, query.name)
    base = await registered_base(pool.registry)
    if query.name == base.name:
        message = f"{base.name} is the name of the base model; choose another one"
        raise failed(ErrorCode.ADAPTER_CONFLICT, message, "name")
    if not _may_replace(query) and (taken := await pool.registry.adapter(query.name)):
        raise already_loaded(query.name, taken.version, field="replace")
    if query.source is None:
        async with pool.part(AdapterUploads).received(
            request, access.tenant, query.config
        ) as upload:
            await _load(pool, access, query, upload_source(upload), param=None)
    else:
        _check_without_body(request, query)
        await _load(pool, access, query, query.source, param="source")
    return await pool.part(ShownAdapters).one(query.name, base)


async def _load(
    pool: Pool, access: Access, query: UploadAdapterQuery, source: str, *, param: str | None
) -> None:
    """Make the adapter at `source` the new version of a name, or its candidate.

    `param` is the part of the request that has the source.
    """
    adapter = await pool.part(Inspector).checked_adapter(
        access.tenant, query.name, source, param=param
    )
    new_versions = pool.part(NewVersions)
    if query.is_candidate:
        await new_versions.add_candidate(adapter, by=access.actor, percent=query.canary)
        return
    await new_versions.load(adapter, replace=_may_replace(query), by=access.actor)


def _may_replace(query: UploadAdapterQuery) -> bool:
    """Return whether the upload is accepted if an adapter with the same name is loaded."""
    return query.replace == "true" or query.is_candidate


def _check_without_body(request: Request, query: UploadAdapterQuery) -> None:
    length = request.headers.get("content-length", "0")
    if length != "0" or "transfer-encoding" in request.headers or query.config is not None:
        raise invalid_value("send a body or `source`, but not both", "source")


@router.post(
    "/pause",
    summary="Do nothing before a weight update",
    responses=adapter_errors(400, 403),
    openapi_extra={"parameters": query_parameters(PauseQuery)},
)
@guarded(Work.CONSTANT, Scope.ADAPTERS)
async def pause(request: Request) -> dict[str, Any]:
    """Confirm that a trainer may update an adapter. Nothing pauses.

    Trainers for vLLM pause generation before they replace weights. The mode `keep` asks for running
    requests to be kept, which is always the case here. The other modes are refused, because they
    end requests.
    """
    validate(PauseQuery, dict(request.query_params))
    return {"status": "ok", "paused": False, "message": NOT_PAUSED}


@router.post("/resume", summary="Do nothing after a weight update", responses=adapter_errors(403))
@guarded(Work.CONSTANT, Scope.ADAPTERS)
async def resume() -> dict[str, Any]:
    """Confirm that requests are served. They are never paused."""
    return {"status": "ok", "paused": False, "message": NOT_PAUSED}
