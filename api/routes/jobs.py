"""GET, POST and DELETE /v1/jobs: the state of a job, and its cancellation."""

from fastapi import APIRouter

from api.context import Context, InContext, InTenant
from api.errors import job_error_body
from api.openapi.responses import errors
from api.render.openai_chunks import usage_body
from api.schema.errors import ErrorDetail
from api.schema.jobs import CancelledJob, JobBody, JobChoice
from api.schema.usage import UsageBody
from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol.ids import job_id_of
from shared.protocol.jobs import JobState
from shared.protocol.results import Result
from shared.store.pool_views import JobView

router = APIRouter(tags=["jobs"])
ERRORS = errors(404, 503)


@router.get("/v1/jobs/{job_id}", summary="Get a job", responses=ERRORS)
async def get_job(job_id: str, context: InContext, tenant: InTenant) -> JobBody:
    """Return the state of a job and, once it is done, its answers. Answers expire after some time.

    `job_id` is the value of the header `X-Lorikeet-Job`, or the `id` of a completion.
    """
    view = await _own_job(job_id, context, tenant)
    result = await context.views.result(view.id)
    return _body(view, result)


@router.post("/v1/jobs/{job_id}/cancel", summary="Cancel a job", responses=ERRORS)
async def cancel_job(job_id: str, context: InContext, tenant: InTenant) -> CancelledJob:
    """Cancel a job. The request that created the job fails with the error `cancelled`.

    Cancelling a job that has already ended has no effect.
    """
    return await _cancel(job_id, context, tenant)


@router.delete("/v1/jobs/{job_id}", summary="Cancel a job", responses=ERRORS)
async def delete_job(job_id: str, context: InContext, tenant: InTenant) -> CancelledJob:
    """Cancel a job. Equivalent to POST /v1/jobs/{job_id}/cancel."""
    return await _cancel(job_id, context, tenant)


async def _cancel(job_id: str, context: Context, tenant: str) -> CancelledJob:
    view = await _own_job(job_id, context, tenant)
    state = await context.queue.cancel(view.id)
    if state is None:
        raise JobFailed(_not_found(job_id))
    return CancelledJob(id=view.id, state=state.value)


async def _own_job(job_id: str, context: Context, tenant: str) -> JobView:
    """Return a job of this tenant.

    Raises:
        JobFailed: there is no such job, or it belongs to another tenant. Both cases have the same
            error, so that tenants can't discover each other's job ids.
    """
    view = await context.views.job(job_id_of(job_id))
    if view is None or view.tenant != tenant:
        raise JobFailed(_not_found(job_id))
    return view


def _not_found(job_id: str) -> JobError:
    return JobError(
        code=ErrorCode.JOB_NOT_FOUND,
        message=f"the job {job_id[:100]!r} doesn't exist or has expired",
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
