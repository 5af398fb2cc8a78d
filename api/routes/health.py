"""GET /health and /ready, for supervisors and load balancers."""

from fastapi import APIRouter, Response

from api.context import InContext
from api.errors import json_response

router = APIRouter(tags=["operations"])


@router.head("/health", include_in_schema=False)
@router.get("/health", summary="Is this process alive?")
async def health() -> dict[str, str]:
    """200 for as long as the process runs, whatever else is down."""
    return {"status": "ok"}


@router.head("/ready", include_in_schema=False)
@router.get(
    "/ready",
    summary="Can requests be served?",
    responses={503: {"description": "not now; `reason` says why"}},
)
async def ready(context: InContext) -> Response:
    """200 when Redis answers, a base model is registered and a worker is alive; a second old."""
    reason = await context.not_ready_reason.get()
    if reason:
        return json_response({"status": "not ready", "reason": reason}, 503)
    return json_response({"status": "ready"})
