"""/v1/workers: pauses of single workers."""

from fastapi import APIRouter

from api.adapters.management import MAY_MANAGE, adapter_errors
from api.http.guards import InAccess, Work, guarded
from api.openapi.entries import Responses
from api.pools.pool import Pool
from api.pools.requested import InPool
from api.schema.workers import WorkerBody
from shared.errors import ErrorCode, JobFailed, failed
from shared.protocol.access.rights import Access, Scope
from shared.protocol.workers import WorkerMode
from shared.store.jobs.worker_modes import ModeOutcome, WorkerModes
from shared.store.views.pool_views import PoolViews, WorkerView

router = APIRouter(tags=["operations"], dependencies=[MAY_MANAGE])
_ERRORS: Responses = adapter_errors(403, 404, 409, 503)


@router.post("/v1/workers/{worker}/pause", summary="Pause a worker", responses=_ERRORS)
@guarded(Work.RECORD, Scope.ADAPTERS)
async def pause_worker(worker: str, access: InAccess, pool: InPool) -> WorkerBody:
    """Give a worker no further jobs. It finishes those that it has. May be repeated.

    `worker` is the short name or the id of the worker, as in GET /v1/pool. The pause ends when the
    worker is resumed or its process ends.
    """
    return await _set_mode(pool, access, worker, WorkerMode.PAUSED)


@router.post("/v1/workers/{worker}/drain", summary="Drain a worker", responses=_ERRORS)
@guarded(Work.RECORD, Scope.ADAPTERS)
async def drain_worker(worker: str, access: InAccess, pool: InPool) -> WorkerBody:
    """Pause a worker, and hand over the jobs that it doesn't finish within its --drain-s.

    Other workers continue these jobs, and their clients notice nothing. Once the worker has no
    jobs, it can be stopped. May be repeated.
    """
    return await _set_mode(pool, access, worker, WorkerMode.DRAINING)


@router.post("/v1/workers/{worker}/resume", summary="Resume a worker", responses=_ERRORS)
@guarded(Work.RECORD, Scope.ADAPTERS)
async def resume_worker(worker: str, access: InAccess, pool: InPool) -> WorkerBody:
    """Let a paused or draining worker take jobs again. May be repeated."""
    return await _set_mode(pool, access, worker, WorkerMode.SERVING)


async def _set_mode(pool: Pool, access: Access, given: str, mode: WorkerMode) -> WorkerBody:
    worker = _found(await pool.part(PoolViews).workers(), given)
    match await pool.part(WorkerModes).set(worker.id, mode, by=access.actor):
        case ModeOutcome.UNKNOWN:
            raise _unknown(given)
        case ModeOutcome.UNABLE:
            message = (
                f"worker {worker.name} runs Lorikeet {worker.info.version}, which can't be paused; "
                "upgrade or stop it"
            )
            raise failed(ErrorCode.WORKER_CONFLICT, message)
    return WorkerBody(id=worker.id, name=worker.name, state=mode.shown)


def _found(workers: list[WorkerView], given: str) -> WorkerView:
    found = [worker for worker in workers if given in (worker.id, worker.name)]
    if len(found) > 1:  # workers of an earlier release don't avoid the names of others
        ids = ", ".join(worker.id for worker in found)
        raise failed(ErrorCode.WORKER_CONFLICT, f"several workers are named {given[:60]}: {ids}")
    if not found:
        raise _unknown(given)
    return found[0]


def _unknown(given: str) -> JobFailed:
    message = f"no worker {given[:60]!r} is in the pool; GET /v1/pool lists the workers"
    return failed(ErrorCode.WORKER_NOT_FOUND, message)
