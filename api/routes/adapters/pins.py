"""/v1/adapters/{name}/pin: adapters that stay in memory."""

from fastapi import APIRouter, Request

from api.access.model_rights import ModelNotFound, check_model
from api.adapters.management import MAY_MANAGE, adapter_errors, read_request
from api.http.guards import InAccess, Work, guarded
from api.openapi.entries import takes
from api.pools.requested import part
from api.schema.adapter_versions import Pin, PinRequest
from shared.protocol.access.rights import Scope
from shared.store.adapters.pins import Pins
from shared.store.adapters.registry import Registry

router = APIRouter(tags=["adapters"], dependencies=[MAY_MANAGE])


@router.put(
    "/v1/adapters/{name:path}/pin",
    summary="Keep an adapter in memory",
    responses=adapter_errors(400, 403, 404, 409, 413, 503),
    openapi_extra=takes(PinRequest, two={"min_replicas": 2}),
)
@guarded(Work.CHANGE, Scope.ADAPTERS)
async def pin_adapter(
    request: Request,
    name: str,
    access: InAccess,
    registry: Registry = part(Registry),
    pins: Pins = part(Pins),
) -> Pin:
    """Keep the current version of an adapter on a minimum number of workers.

    Workers load it within seconds, also after a change of the version. Its memory is used for
    another adapter only if that adapter has requests and nothing else can make room for it.
    """
    body = await read_request(request, PinRequest)
    await check_model(registry, access, name)
    if not await pins.set(name, body.min_replicas, by=access.actor):
        raise ModelNotFound(name)
    return Pin(id=name, min_replicas=body.min_replicas)


@router.delete(
    "/v1/adapters/{name:path}/pin",
    summary="Stop keeping an adapter in memory",
    responses=adapter_errors(403, 404, 503),
)
@guarded(Work.CHANGE, Scope.ADAPTERS)
async def unpin_adapter(
    name: str, access: InAccess, registry: Registry = part(Registry), pins: Pins = part(Pins)
) -> Pin:
    """Let workers evict an adapter again when others need its memory. May be repeated."""
    await check_model(registry, access, name)
    if not await pins.set(name, 0, by=access.actor):
        raise ModelNotFound(name)
    return Pin(id=name, min_replicas=0)
