"""POST /v1/adapters/{name}/release: ends the quarantine of an adapter."""

from fastapi import APIRouter

from api.access.model_rights import ModelNotFound, check_model
from api.adapters.management import MAY_MANAGE, adapter_errors
from api.adapters.shown_adapters import ShownAdapters
from api.http.guards import InAccess, Work, guarded
from api.pools.registered_base import registered_base
from api.pools.requested import part
from api.schema.adapters import AdapterBody
from shared.protocol.access.rights import Scope
from shared.store.adapters.registry import Registry

router = APIRouter(tags=["adapters"], dependencies=[MAY_MANAGE])


@router.post(
    "/v1/adapters/{name:path}/release",
    summary="Release an adapter from quarantine",
    responses=adapter_errors(403, 404, 409, 503),
)
@guarded(Work.CHANGE, Scope.ADAPTERS)
async def release_adapter(
    name: str,
    access: InAccess,
    registry: Registry = part(Registry),
    shown: ShownAdapters = part(ShownAdapters),
) -> AdapterBody:
    """Let a quarantined adapter take requests again at once.

    If another of its jobs dies, it is quarantined again, unless a job is answered first.
    """
    await check_model(registry, access, name)
    base = await registered_base(registry)
    if await registry.release_adapter(name, by=access.actor) is None:
        raise ModelNotFound(name)
    return await shown.one(name, base)
