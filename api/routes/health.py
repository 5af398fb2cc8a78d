"""/health, /ready and /ping, for supervisors and load balancers."""

from fastapi import APIRouter, Response

from api.context import InContext
from api.errors import json_response
from api.openapi.responses import Responses

router = APIRouter(tags=["operations"])
_NOT_READY: Responses = {503: {"description": "Requests can't be served; `reason` says why."}}


@router.head("/health", include_in_schema=False)
@router.get("/health", summary="Liveness check")
async def health() -> dict[str, str]:
    """Return 200 while the process runs, even if Redis or all workers are unavailable."""
    return {"status": "ok"}


@router.post("/ping", summary="Readiness check of SageMaker", responses=_NOT_READY)
@router.head("/ping", include_in_schema=False)
@router.get("/ping", summary="Readiness check of SageMaker", responses=_NOT_READY)
@router.head("/ready", include_in_schema=False)
@router.get("/ready", summary="Readiness check", responses=_NOT_READY)
async def ready(context: InContext) -> Response:
    """Return 200 if Redis answers, a base model is registered and a worker is alive.

    The result is cached for one second.
    """
    reason = await context.not_ready_reason.get()
    if reason:
        return json_response({"status": "not ready", "reason": reason}, 503)
    return json_response({"status": "ready"})
