"""Finds jobs on behalf of their tenants."""

from api.context import Context
from api.jobs.list_query import ListQuery
from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol.ids import job_id_of
from shared.protocol.results import Result
from shared.store.views.job_view import JobPage, JobView


async def own_job(context: Context, tenant: str, job_id: str) -> JobView:
    """Return a job of this tenant. `job_id` is the id of a job or of a completion.

    Raises:
        JobFailed: there is no such job, or it belongs to another tenant. Both cases have the same
            error, so that tenants can't discover each other's job ids.
    """
    view = await context.views.job(job_id_of(job_id))
    return _checked(view, tenant, job_id)


async def own_job_and_result(
    context: Context, tenant: str, job_id: str
) -> tuple[JobView, Result | None]:
    """Return a job of this tenant and its result, if it has one.

    Raises:
        JobFailed: as `own_job`.
    """
    view, result = await context.views.job_and_result(job_id_of(job_id))
    return _checked(view, tenant, job_id), result


async def own_jobs(context: Context, tenant: str, query: ListQuery) -> JobPage:
    """Return a page of the tenant's jobs that match `query`, newest first.

    Raises:
        JobFailed: the tenant doesn't have the job `query.after`.
    """
    page = await context.views.jobs(
        tenant,
        limit=query.limit,
        after=query.after,
        states=query.states,
        model=query.model,
    )
    if page is None:
        raise JobFailed(job_not_found(query.after or "", param="after"))
    return page


def job_not_found(job_id: str, *, param: str | None = None) -> JobError:
    """Return the error for the id of a job that the tenant doesn't have."""
    return JobError(
        code=ErrorCode.JOB_NOT_FOUND,
        message=f"the job {job_id[:100]!r} doesn't exist or has expired",
        param=param,
    )


def _checked(view: JobView | None, tenant: str, job_id: str) -> JobView:
    if view is None or view.tenant != tenant:
        raise JobFailed(job_not_found(job_id))
    return view
