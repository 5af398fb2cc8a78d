"""Routes for operators, load balancers, monitoring and vLLM's clients: state, health, metrics."""

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from api.access.model_rights import check_model
from api.follow.reply_hub import ReplyHub
from api.http.errors import json_response
from api.http.guards import InAccess, Key, Work, guarded
from api.http.parameters import query
from api.metrics.metrics import Metrics
from api.openapi.entries import Responses, errors
from api.pools.pool_status import PoolReports, Readiness
from api.pools.pools import registered_base
from api.pools.requested import part
from api.schema.pool import PoolBody
from api.schema.server_info import (
    LoraConfig,
    ModelConfig,
    ServerInfo,
    ServerLoad,
    ServerVersion,
    VllmConfig,
    WorldSize,
)
from shared.errors import invalid_value
from shared.protocol.access.rights import Scope
from shared.store.adapters.registry import Registry
from shared.store.views.pool_views import PoolViews, WorkerView

router = APIRouter(tags=["operations"])
FORMAT = "config_format"
_JSON = "json"
_METRICS_DENIED = {403: "The key belongs to a tenant without access to metrics."}
_NOT_READY: Responses = {503: {"description": "Jobs aren't accepted; `reason` says why."}}
_NO_WORKER: Responses = {503: {"description": "Jobs aren't computed; `reason` says why."}}
_ADMIN_DENIED = {403: "The key lacks the scope `admin`."}
_STREAM_HEADERS = {
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx would buffer the events otherwise
}


@router.get(
    "/v1/pool",
    summary="State of the pool",
    response_model=PoolBody,
    responses={**errors(403, meanings=_ADMIN_DENIED), **errors(503)},
)
@guarded(Work.SUMMARY, Scope.ADMIN)
async def get_pool(reports: PoolReports = part(PoolReports)) -> Response:
    """Return workers, adapters, queue, rates and incidents. The state is cached for one second."""
    state = await reports.state.get()
    return json_response({**reports.body_of(state), "history": state.points})


@router.get(
    "/v1/pool/events",
    summary="Stream the state of the pool",
    response_class=Response,  # without a media type, so that errors are documented as JSON
    responses={
        200: {
            "description": "Server-sent events. `pool`: the state, at first with the whole "
            "history, then each second with the points that are new. `incident`: one incident, "
            "once it happens. `error`: Redis doesn't answer, and the stream goes on once it does.",
            "content": {"text/event-stream": {}},
        },
        **errors(403, meanings=_ADMIN_DENIED),
    },
)
@guarded(Work.STREAM, Scope.ADMIN)
async def stream_pool(reports: PoolReports = part(PoolReports)) -> Response:
    """Send the state of the pool as server-sent events until the client leaves."""
    events = reports.feed.events()
    return StreamingResponse(events, media_type="text/event-stream", headers=_STREAM_HEADERS)


@router.head("/health", include_in_schema=False)
@router.get("/health", summary="Liveness check")
@guarded(Work.CONSTANT, key=Key.IGNORED)
async def health() -> dict[str, str]:
    """Return 200 while the process runs, even if Redis or all workers are unavailable."""
    return {"status": "ok"}


@router.head("/ready", include_in_schema=False)
@router.get("/ready", summary="Readiness check", responses=_NOT_READY)
@guarded(Work.SUMMARY, key=Key.OPTIONAL)
async def ready(request: Request, reports: PoolReports = part(PoolReports)) -> Response:
    """Return 200 if jobs are accepted: Redis answers, and a base model is registered.

    Accepted jobs wait while no worker is alive. The result is cached for one second.
    """
    readiness = await reports.readiness.get()
    return _response(request, readiness, readiness.reason_to_refuse)


@router.post("/ping", summary="Readiness check of SageMaker", responses=_NO_WORKER)
@router.head("/ping", include_in_schema=False)
@router.get("/ping", summary="Readiness check of SageMaker", responses=_NO_WORKER)
@router.head("/ready/worker", include_in_schema=False)
@router.get("/ready/worker", summary="Readiness check of the pool", responses=_NO_WORKER)
@guarded(Work.SUMMARY, key=Key.OPTIONAL)
async def ready_worker(request: Request, reports: PoolReports = part(PoolReports)) -> Response:
    """Return 200 if jobs are accepted and a worker is alive.

    The result is cached for one second.
    """
    readiness = await reports.readiness.get()
    return _response(request, readiness, readiness.reason_to_wait)


def _response(request: Request, readiness: Readiness, reason: str | None) -> Response:
    """Return the response to a check. Only clients with a key learn the size of the pool."""
    body: dict[str, Any] = {
        "status": "not ready" if reason else "ready",
        "accepts_jobs": readiness.accepts_jobs,
        "has_worker": readiness.num_workers > 0,
    }
    if request.state.tenant is not None:
        body["num_workers"] = readiness.num_workers
    return json_response({**body, "reason": reason}, 503) if reason else json_response(body)


@router.head("/metrics", include_in_schema=False)
@router.get(
    "/metrics",
    summary="Metrics of this process and of its pool",
    response_class=PlainTextResponse,
    responses=errors(403, meanings=_METRICS_DENIED),
)
@guarded(Work.SUMMARY, Scope.METRICS)
async def get_metrics(
    metrics: Metrics = part(Metrics), reports: PoolReports = part(PoolReports)
) -> Response:
    """Return all metrics in Prometheus's text format. Pool metrics are cached for one second."""
    body = metrics.exposition(await reports.snapshot.get())
    return Response(body, media_type=CONTENT_TYPE_PLAIN_0_0_4)


@router.get("/version", summary="Version of the server")
@guarded(Work.CONSTANT, key=Key.IGNORED)
async def get_version() -> ServerVersion:
    """Return the version of Lorikeet that this front end runs."""
    return ServerVersion(version=version("lorikeet-serve"))


@router.get(
    "/load",
    summary="Load of this process",
    responses=errors(403, meanings=_METRICS_DENIED),
)
@guarded(Work.SUMMARY, Scope.METRICS)
async def get_load(replies: ReplyHub = part(ReplyHub)) -> ServerLoad:
    """Return the number of jobs whose answers clients of this front end are waiting for."""
    return ServerLoad(server_load=len(replies.jobs))


@router.get(
    "/server_info",
    summary="Configuration of the pool",
    responses=errors(400, 404, 503),
    openapi_extra={
        "parameters": [
            query(FORMAT, "Always json, which is the default.", {"type": "string", "enum": [_JSON]})
        ]
    },
)
@guarded(Work.SUMMARY, Scope.INFERENCE)
async def get_server_info(
    request: Request,
    access: InAccess,
    registry: Registry = part(Registry),
    views: PoolViews = part(PoolViews),
) -> ServerInfo:
    """Return what vLLM's clients look up in the configuration of a server."""
    if (sent := request.query_params.get(FORMAT, _JSON)) != _JSON:
        raise invalid_value(f"{FORMAT} must be {_JSON}, not {sent[:40]!r}", FORMAT)
    base = await registered_base(registry)
    await check_model(registry, access, base.name)
    workers = await _live_workers(views)
    return ServerInfo(
        vllm_config=VllmConfig(
            model_config_=ModelConfig(
                model=base.name,
                dtype=f"torch.{workers[0].info.dtype}" if workers else None,
                max_model_len=base.max_model_len,
            ),
            lora_config=LoraConfig(max_loras=sum(w.info.max_num_seqs for w in workers)),
        )
    )


@router.get("/get_world_size", summary="Number of workers", responses=errors(503))
@guarded(Work.SUMMARY, Scope.INFERENCE)
async def get_world_size(views: PoolViews = part(PoolViews)) -> WorldSize:
    """Return the number of live workers of the pool."""
    return WorldSize(world_size=len(await _live_workers(views)))


async def _live_workers(views: PoolViews) -> list[WorkerView]:
    return [worker for worker in await views.workers() if worker.lease_left_ms > 0]
