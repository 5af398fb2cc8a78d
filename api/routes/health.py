"""GET /health and /ready, for supervisors and load balancers."""

from fastapi import APIRouter, Response

from api.context import Context, InContext
from api.errors import json_response
from api.redis_guard import redis_guard
from shared.errors import RedisUnavailable

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
    """200 when Redis answers, a base model is registered and a worker is alive."""
    reason = await _not_ready_reason(context)
    if reason:
        return json_response({"status": "not ready", "reason": reason}, 503)
    return json_response({"status": "ready"})


async def _not_ready_reason(context: Context) -> str | None:
    try:
        async with redis_guard():
            base = await context.registry.base()
            workers = await context.queue.workers()
    except RedisUnavailable:
        return "Redis doesn't answer"
    if base is None:
        return "no base model is registered"
    if not any(worker.lease_left_ms > 0 for worker in workers):
        return "no worker is alive"
    return None
