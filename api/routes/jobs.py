"""/v1/jobs: look a request up, or cancel it."""

from fastapi import APIRouter

from api.context import Context, InContext, InTenant
from api.errors import job_error_body
from api.openapi.responses import errors
from api.redis_guard import redis_guard
from api.render.openai_chunks import usage_body
from api.schema.errors import ErrorDetail
from api.schema.jobs import CancelledJob, JobBody, JobChoice
from api.schema.usage import UsageBody
from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol.answer_ids import job_id_of
from shared.protocol.jobs import JobState
from shared.protocol.results import Result
from shared.store.pool_views import JobView

router = APIRouter(tags=["jobs"])
ERRORS = errors(404, 503)


@router.get("/v1/jobs/{job_id}", summary="Look a request up", responses=ERRORS)
async def get_job(job_id: str, context: InContext, tenant: InTenant) -> JobBody:
    """Where a request is, and its answers once it is done, for as long as they are kept.

    The id is the response's `X-Lorikeet-Job` header; the `id` of a completion works as well.
    """
    view = await _own_job(job_id, context, tenant)
    async with redis_guard():
        result = await context.queue.result(view.id)
    return _body(view, result)


@router.post("/v1/jobs/{job_id}/cancel", summary="Cancel a request", responses=ERRORS)
async def cancel_job(job_id: str, context: InContext, tenant: InTenant) -> CancelledJob:
    """Its client gets the error `cancelled`. A job that has ended stays as it is."""
    return await _cancel(job_id, context, tenant)


@router.delete("/v1/jobs/{job_id}", summary="Cancel a request", responses=ERRORS)
async def delete_job(job_id: str, context: InContext, tenant: InTenant) -> CancelledJob:
    """The same as POST .../cancel."""
    return await _cancel(job_id, context, tenant)


async def _cancel(job_id: str, context: Context, tenant: str) -> CancelledJob:
    view = await _own_job(job_id, context, tenant)
    async with redis_guard():
        state = await context.queue.cancel(view.id)
    if state is None:
        raise JobFailed(_not_found(job_id))
    return CancelledJob(id=view.id, state=state.value)


async def _own_job(job_id: str, context: Context, tenant: str) -> JobView:
    """The tenant's job; another tenant's is as unknown to it as one that never was."""
    async with redis_guard():
        view = await context.queue.job_view(job_id_of(job_id))
    if view is None or view.tenant != tenant:
        raise JobFailed(_not_found(job_id))
    return view


def _not_found(job_id: str) -> JobError:
    return JobError(
        code=ErrorCode.JOB_NOT_FOUND,
        message=f"there is no job {job_id[:100]!r}, or it is no longer kept",
    )


def _body(view: JobView, result: Result | None) -> JobBody:
    return JobBody(
        id=view.id,
        state=view.state.value,
        model=view.model,
        version=view.version,
        created_ms=view.enqueued_ms,
        started_ms=view.started_ms,
        ended_ms=view.ended_ms,
        position=view.position,
        tries=view.try_,
        worker=view.worker,
        error=ErrorDetail(**job_error_body(view.error)["error"]) if view.error else None,
        usage=UsageBody(**usage_body(view.usage)) if view.usage else None,
        choices=_choices(result) if result and result.state is JobState.DONE else None,
    )


def _choices(result: Result) -> list[JobChoice]:
    return [
        JobChoice(index=index, text=choice.text, finish_reason=choice.finish.value)
        for index, choice in enumerate(result.choices)
    ]
