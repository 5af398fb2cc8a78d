"""Finds jobs on behalf of their tenants."""

from api.jobs.list_query import ListQuery
from api.pools.context import Context
from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol.access.rights import Access
from shared.protocol.ids import job_id_of, name_of
from shared.protocol.results import Result
from shared.store.views.job_view import JobPage, JobView


async def own_job(context: Context, access: Access, job_id: str) -> JobView:
    """Return a job that the client may see. `job_id` is the id of a job or of a completion.

    Raises:
        JobFailed: there is no such job, it belongs to another tenant, or its model isn't allowed.
            All cases have the same error, so that tenants can't discover each other's job ids.
    """
    view = await context.views.job(job_id_of(job_id))
    return _checked(view, access, job_id)


async def own_job_and_result(
    context: Context, access: Access, job_id: str
) -> tuple[JobView, Result | None]:
    """Return a job that the client may see and its result, if it has one.

    Raises:
        JobFailed: as `own_job`.
    """
    view, result = await context.views.job_and_result(job_id_of(job_id))
    return _checked(view, access, job_id), result


async def own_jobs(context: Context, access: Access, query: ListQuery) -> JobPage:
    """Return a page of the jobs that the client may see and that match `query`, newest first.

    Raises:
        JobFailed: the tenant doesn't have the job `query.after`.
    """
    page = await context.views.jobs(
        access.tenant,
        limit=query.limit,
        after=query.after,
        states=query.states,
        model=query.model,
        allows=access.allows,
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


def _checked(view: JobView | None, access: Access, job_id: str) -> JobView:
    if view is None or view.tenant != access.tenant or not access.allows(name_of(view.version)):
        raise JobFailed(job_not_found(job_id))
    return view
