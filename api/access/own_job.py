"""Looks up jobs by id, for clients that may see them."""

from shared.errors import ErrorCode, JobFailed, failed
from shared.protocol.access.rights import Access, Scope
from shared.protocol.ids import job_id_of, name_of
from shared.protocol.results import Result
from shared.store.views.job_view import JobView
from shared.store.views.pool_views import PoolViews


def is_operator(access: Access) -> bool:
    """Return whether a client may see and control jobs of all tenants, without their answers."""
    return Scope.ADMIN in access.scopes


async def known_job(views: PoolViews, access: Access, job_id: str) -> JobView:
    """Return what is known about a job, even if its answer and its request have expired.

    Operators may see jobs of all tenants.

    Raises:
        JobFailed: as in `own_job`.
    """
    view = await views.job_or_record(job_id_of(job_id))
    if view is not None and is_operator(access) and access.allows(name_of(view.version)):
        return view
    return _checked(view, access, job_id)


async def own_job(views: PoolViews, access: Access, job_id: str) -> JobView:
    """Return a job that the client may see. `job_id` is the id of a job or of a completion.

    Raises:
        JobFailed: there is no such job, it belongs to another tenant, or its model isn't allowed.
            The error is the same in all cases, so that tenants can't discover each other's job ids.
    """
    view = await views.job(job_id_of(job_id))
    return _checked(view, access, job_id)


async def own_job_and_result(
    views: PoolViews, access: Access, job_id: str
) -> tuple[JobView, Result | None]:
    """Return a job that the client may see, and the job's result or None.

    Raises:
        JobFailed: as in `own_job`.
    """
    view, result = await views.job_and_result(job_id_of(job_id))
    return _checked(view, access, job_id), result


def job_not_found(job_id: str, *, param: str | None = None) -> JobFailed:
    """Return the error for a job id that doesn't belong to the tenant."""
    message = f"the job {job_id[:100]!r} doesn't exist or has expired"
    return failed(ErrorCode.JOB_NOT_FOUND, message, param)


def _checked(view: JobView | None, access: Access, job_id: str) -> JobView:
    if view is None or view.tenant != access.tenant or not access.allows(name_of(view.version)):
        raise job_not_found(job_id)
    return view
