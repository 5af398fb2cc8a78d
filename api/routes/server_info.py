"""Routes for metrics, version and limits. Monitoring and vLLM's and SGLang's clients use them."""

from importlib.metadata import version

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from api.access.model_rights import check_model
from api.follow.reply_hub import ReplyHub
from api.http.guards import InAccess, Key, Work, guarded
from api.http.parameters import query
from api.metrics.metrics import Metrics
from api.openapi.entries import errors
from api.pools.pool_status import PoolReports
from api.pools.registered_base import registered_base
from api.pools.requested import part
from api.schema.server_info import (
    LoraConfig,
    ModelConfig,
    ModelInfo,
    ServerInfo,
    ServerLoad,
    ServerVersion,
    VllmConfig,
    WorldSize,
)
from shared.errors import invalid_value
from shared.protocol.access.rights import Scope
from shared.store.adapters.registry import Registry
from shared.store.views.pool_views import PoolViews

router = APIRouter(tags=["operations"])
FORMAT = "config_format"
_JSON = "json"
_FORMAT_PARAMETER = {
    "parameters": [
        query(FORMAT, "Always json, which is the default.", {"type": "string", "enum": [_JSON]})
    ]
}
_METRICS_DENIED = {403: "The key belongs to a tenant without access to metrics."}


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
    """Return the number of jobs that clients of this front end are waiting for."""
    return ServerLoad(server_load=len(replies.jobs))


@router.get(
    "/get_server_info",
    summary="Configuration of the pool",
    responses=errors(400, 404, 503),
    openapi_extra=_FORMAT_PARAMETER,
)
@router.get(
    "/server_info",
    summary="Configuration of the pool",
    responses=errors(400, 404, 503),
    openapi_extra=_FORMAT_PARAMETER,
)
@guarded(Work.SUMMARY, Scope.INFERENCE)
async def get_server_info(
    request: Request,
    access: InAccess,
    registry: Registry = part(Registry),
    views: PoolViews = part(PoolViews),
) -> ServerInfo:
    """Return those settings of the server that vLLM's and SGLang's clients look up."""
    if (sent := request.query_params.get(FORMAT, _JSON)) != _JSON:
        raise invalid_value(f"{FORMAT} must be {_JSON}, not {sent[:40]!r}", FORMAT)
    base = await registered_base(registry)
    await check_model(registry, access, base.name)
    workers = await views.live_workers()
    num_sequences = sum(worker.info.max_num_seqs for worker in workers)
    return ServerInfo(
        model_path=base.name,
        served_model_name=base.name,
        tokenizer_path=base.name,
        version=version("lorikeet-serve"),
        context_length=base.max_model_len,
        max_running_requests=num_sequences,
        vllm_config=VllmConfig(
            model_config_=ModelConfig(
                model=base.name,
                dtype=f"torch.{workers[0].info.dtype}" if workers else None,
                max_model_len=base.max_model_len,
            ),
            lora_config=LoraConfig(max_loras=num_sequences),
        ),
    )


@router.get("/get_model_info", summary="The base model", responses=errors(404, 503))
@router.get("/model_info", summary="The base model", responses=errors(404, 503))
@guarded(Work.SUMMARY, Scope.INFERENCE)
async def get_model_info(access: InAccess, registry: Registry = part(Registry)) -> ModelInfo:
    """Return the base model, in SGLang's format."""
    base = await registered_base(registry)
    await check_model(registry, access, base.name)
    return ModelInfo(
        model_path=base.name,
        served_model_name=base.name,
        tokenizer_path=base.name,
        weight_version=base.version,
        has_image_understanding=base.takes_images,
    )


@router.get("/get_world_size", summary="Number of workers", responses=errors(503))
@guarded(Work.SUMMARY, Scope.INFERENCE)
async def get_world_size(views: PoolViews = part(PoolViews)) -> WorldSize:
    """Return the number of live workers of the pool."""
    return WorldSize(world_size=len(await views.live_workers()))
