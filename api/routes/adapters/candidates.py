"""/v1/adapters/{name}/candidate: a version that is tried out alongside the current one."""

from fastapi import APIRouter, Request

from api.access.model_rights import ModelNotFound, check_model
from api.adapters.comparisons import agreement, compared_usage, differing_pairs
from api.adapters.inspection import Inspector
from api.adapters.management import MAY_MANAGE, READS, adapter_errors, read_request
from api.adapters.new_versions import NewVersions
from api.adapters.shown_adapters import ShownAdapters, candidate_body
from api.http.guards import InAccess, Work, guarded
from api.http.validation import validate
from api.openapi.entries import query_parameters, takes
from api.pools.registered_base import registered_base
from api.pools.requested import part
from api.schema.adapter_versions import CandidateDetails, CandidateQuery, SetCandidateRequest
from api.schema.adapters import AdapterBody
from shared.errors import invalid_value
from shared.protocol.access.rights import Access, Scope
from shared.protocol.ids import AdapterVersion
from shared.store.adapters.candidates import Candidates
from shared.store.adapters.refusals import without_candidate
from shared.store.adapters.registry import Registry
from shared.store.adapters.shadows import Shadows
from shared.store.views.pool_views import PoolViews

router = APIRouter(tags=["adapters"], dependencies=[MAY_MANAGE])


@router.get(
    "/v1/adapters/{name:path}/candidate",
    summary="Get the candidate version of an adapter",
    responses=adapter_errors(403, 404, 409, 503),
)
@guarded(Work.READ, Scope.ADAPTERS)
async def get_candidate(
    name: str,
    access: InAccess,
    registry: Registry = part(Registry),
    shown: ShownAdapters = part(ShownAdapters),
    shadows: Shadows = part(Shadows),
    views: PoolViews = part(PoolViews),
) -> CandidateDetails:
    """Return the candidate of an adapter, and how it compares with the current version.

    For a shadow, the answers are compared, too.
    """
    await check_model(registry, access, name)
    view = await shown.view(name)
    body = candidate_body(view, await views.workers())
    if body is None or view.candidate is None:
        raise without_candidate(name)
    version = AdapterVersion(body.version)
    return CandidateDetails(
        **dict(body),
        compared=[compared_usage(each) for each in (view.candidate, view.current)],
        agreement=agreement(await shadows.comparison(version)),
        differing=await differing_pairs(shadows, views, access, version),
    )


@router.put(
    "/v1/adapters/{name:path}/candidate",
    summary="Try out a version of an adapter",
    responses=adapter_errors(*READS, 409),
    openapi_extra=takes(
        SetCandidateRequest,
        canary={"source": "/adapters/sql-v2", "percent": 10},
        shadow={"source": "/adapters/sql-v2", "mode": "shadow", "percent": 100},
        widen={"percent": 50},
    ),
)
@guarded(Work.INSPECTION, Scope.ADAPTERS)
async def set_candidate(
    request: Request,
    name: str,
    access: InAccess,
    registry: Registry = part(Registry),
    inspector: Inspector = part(Inspector),
    new_versions: NewVersions = part(NewVersions),
    candidates: Candidates = part(Candidates),
    shown: ShownAdapters = part(ShownAdapters),
) -> AdapterBody:
    """Let a version answer a share of an adapter's requests, or compute copies of them.

    With `source`, a worker checks the adapter first. The requests of one `user` get the same
    version as long as the share doesn't shrink. Requests for `name@digest` aren't affected.
    """
    body = await read_request(request, SetCandidateRequest)
    await check_model(registry, access, name)
    if body.source is not None and body.version is not None:
        raise invalid_value("send `source` or `version`, but not both", "version")
    if await registry.adapter(name) is None:
        raise ModelNotFound(name)
    if body.source is None:
        found = await candidates.set(
            name, body.version, mode=body.mode, percent=body.percent, by=access.actor
        )
        return await _changed(registry, shown, name, found)
    adapter = await inspector.checked_adapter(access.tenant, name, body.source, param="source")
    await new_versions.add_candidate(adapter, by=access.actor, mode=body.mode, percent=body.percent)
    return await _changed(registry, shown, name, adapter.version)


@router.delete(
    "/v1/adapters/{name:path}/candidate",
    summary="End the trial of a version",
    responses=adapter_errors(400, 403, 404, 409, 503),
    openapi_extra={"parameters": query_parameters(CandidateQuery)},
)
@guarded(Work.CHANGE, Scope.ADAPTERS)
async def drop_candidate(
    request: Request,
    name: str,
    access: InAccess,
    registry: Registry = part(Registry),
    candidates: Candidates = part(Candidates),
    shown: ShownAdapters = part(ShownAdapters),
) -> AdapterBody:
    """Let the current version answer all requests again. Accepted requests still end normally.

    With `version`, nothing changes if another version is the candidate by now.
    """
    version = await _expected(request, name, registry, access)
    ended = await candidates.drop(name, version, by=access.actor)
    return await _changed(registry, shown, name, ended)


@router.post(
    "/v1/adapters/{name:path}/candidate/promote",
    summary="Make the candidate the current version",
    responses=adapter_errors(400, 403, 404, 409, 503),
    openapi_extra={"parameters": query_parameters(CandidateQuery)},
)
@guarded(Work.CHANGE, Scope.ADAPTERS)
async def promote_candidate(
    request: Request,
    name: str,
    access: InAccess,
    registry: Registry = part(Registry),
    candidates: Candidates = part(Candidates),
    shown: ShownAdapters = part(ShownAdapters),
) -> AdapterBody:
    """Let the candidate answer all requests. A rollback restores the replaced version.

    With `version`, nothing changes if another version is the candidate by now.
    """
    version = await _expected(request, name, registry, access)
    ended = await candidates.promote(name, version, by=access.actor)
    return await _changed(registry, shown, name, ended)


async def _expected(
    request: Request, name: str, registry: Registry, access: Access
) -> AdapterVersion | None:
    """Return the version that the query expects to be the candidate, or None if it names none."""
    query = validate(CandidateQuery, dict(request.query_params))
    await check_model(registry, access, name)
    return query.version


async def _changed(
    registry: Registry, shown: ShownAdapters, name: str, version: AdapterVersion | None
) -> AdapterBody:
    """Return the response body after a change. `version` is None if the name is unknown."""
    if version is None:
        raise ModelNotFound(name)
    return await shown.one(name, await registered_base(registry))
