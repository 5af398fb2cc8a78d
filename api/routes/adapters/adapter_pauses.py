"""Pauses of single adapters: their jobs wait in the queue."""

from fastapi import APIRouter

from api.access.model_rights import ModelNotFound, check_model
from api.adapters.management import MAY_MANAGE, adapter_errors
from api.http.guards import InAccess, Work, guarded
from api.pools.requested import part
from api.schema.workers import AdapterPauseBody
from shared.protocol.access.rights import Scope
from shared.store.adapters.adapter_pauses import AdapterPauses
from shared.store.adapters.registry import Registry

router = APIRouter(tags=["adapters"], dependencies=[MAY_MANAGE])


@router.post(
    "/v1/adapters/{name:path}/pause",
    summary="Pause an adapter",
    responses=adapter_errors(403, 404, 409, 503),
)
@guarded(Work.RECORD, Scope.ADAPTERS)
async def pause_adapter(
    name: str,
    access: InAccess,
    registry: Registry = part(Registry),
    pauses: AdapterPauses = part(AdapterPauses),
) -> AdapterPauseBody:
    """Let the jobs of an adapter wait in the queue, whatever their version. May be repeated.

    Requests are accepted until the queue is full. Their deadlines still apply. Running jobs go on.
    """
    await check_model(registry, access, name)
    if not await pauses.set(name, is_paused=True, by=access.actor):
        raise ModelNotFound(name)
    return AdapterPauseBody(id=name, is_paused=True)


@router.post(
    "/v1/adapters/{name:path}/resume",
    summary="Resume an adapter",
    responses=adapter_errors(403, 404, 503),
)
@guarded(Work.RECORD, Scope.ADAPTERS)
async def resume_adapter(
    name: str,
    access: InAccess,
    registry: Registry = part(Registry),
    pauses: AdapterPauses = part(AdapterPauses),
) -> AdapterPauseBody:
    """Let workers take the jobs of a paused adapter again. May be repeated."""
    await check_model(registry, access, name)
    if not await pauses.set(name, is_paused=False, by=access.actor):
        raise ModelNotFound(name)
    return AdapterPauseBody(id=name, is_paused=False)
