"""/health, /ready and /ping, for supervisors and load balancers."""

from typing import Any

from fastapi import APIRouter, Request, Response

from api.http.errors import json_response
from api.http.guards import Key, Work, guarded
from api.openapi.entries import Responses
from api.pools.pool_status import PoolReports, Readiness
from api.pools.requested import part

router = APIRouter(tags=["operations"])
_NOT_READY: Responses = {503: {"description": "Jobs aren't accepted; `reason` says why."}}
_NO_WORKER: Responses = {503: {"description": "Jobs aren't computed; `reason` says why."}}


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


@router.head("/health_generate", include_in_schema=False)
@router.get("/health_generate", summary="Readiness check of SGLang", responses=_NO_WORKER)
@guarded(Work.SUMMARY, key=Key.OPTIONAL)
async def health_generate(request: Request, reports: PoolReports = part(PoolReports)) -> Response:
    """Do the same as /ready/worker, without generating a token.

    A worker whose engine hangs loses its lease.
    """
    return await ready_worker(request, reports)


def _response(request: Request, readiness: Readiness, reason: str | None) -> Response:
    """Return the response to a check. Only clients with a key see the size of the pool."""
    body: dict[str, Any] = {
        "status": "not ready" if reason else "ready",
        "accepts_jobs": readiness.accepts_jobs,
        "has_worker": readiness.num_workers > 0,
        "is_paused": readiness.is_paused,
    }
    if request.state.tenant is not None:
        body["num_workers"] = readiness.num_workers
    return json_response({**body, "reason": reason}, 503) if reason else json_response(body)
