"""GET /metrics, for Prometheus."""

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from api.context import Context, InContext
from api.pool_metrics import PoolSnapshot
from api.redis_guard import redis_guard
from shared.errors import RedisUnavailable

router = APIRouter(tags=["operations"])


@router.get(
    "/metrics",
    summary="Metrics of this process and of its pool",
    response_class=PlainTextResponse,
)
async def metrics(context: InContext) -> Response:
    """Prometheus' text format. Pool figures are read from Redis at each scrape."""
    body = context.metrics.exposition(await _snapshot(context))
    return Response(body, media_type=CONTENT_TYPE_PLAIN_0_0_4)


async def _snapshot(context: Context) -> PoolSnapshot | None:
    try:
        async with redis_guard():
            queue = context.queue
            return PoolSnapshot(await queue.counts(), await queue.workers(), await queue.memory())
    except RedisUnavailable:
        return None
