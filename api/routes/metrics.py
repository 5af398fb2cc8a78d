"""GET /metrics, for Prometheus."""

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from api.context import InContext
from api.openapi.responses import errors

router = APIRouter(tags=["operations"])


@router.head("/metrics", include_in_schema=False)
@router.get(
    "/metrics",
    summary="Metrics of this process and of its pool",
    response_class=PlainTextResponse,
    responses=errors(403, meanings={403: "The key belongs to a tenant without access to metrics."}),
)
async def metrics(context: InContext) -> Response:
    """Return all metrics in Prometheus's text format. Pool metrics are cached for one second."""
    body = context.metrics.exposition(await context.pool_snapshot.get())
    return Response(body, media_type=CONTENT_TYPE_PLAIN_0_0_4)
