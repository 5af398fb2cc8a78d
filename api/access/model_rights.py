"""Which models a client may use, and which jobs it may see. Routes with their names ask here."""

from shared.errors import ErrorCode, JobFailed, failed
from shared.protocol.access.rights import Access
from shared.protocol.adapters import own_name
from shared.protocol.ids import job_id_of, name_of
from shared.protocol.results import Result
from shared.store.adapters.registry import Registry
from shared.store.views.job_view import JobView
from shared.store.views.pool_views import PoolViews


async def may_use(registry: Registry, access: Access, model: str) -> bool:
    """Return whether the client may use the model to which `model` refers, in any of its forms.

    Raises:
        RedisUnavailable: the name of the base model can't be read.
    """
    if access.allows_all:
        return True
    return access.allows(own_name(model, await registry.base()))


async def check_model(registry: Registry, access: Access, model: str) -> None:
    """Check that the client may use the model to which `model` refers.

    Raises:
        JobFailed: it may not. The error is that of an unknown name.
        RedisUnavailable: the name of the base model can't be read.
    """
    if not await may_use(registry, access, model):
        raise model_not_found(model)


def model_not_found(name: str) -> JobFailed:
    """Return the failure for a `name` that belongs to neither the base model nor an adapter.

    The first sentence is OpenAI's, because clients match it.
    """
    message = f"The model {name[:200]!r} does not exist or you do not have access to it. "
    message += "GET /v1/models lists all models."
    return failed(ErrorCode.MODEL_NOT_FOUND, message, "model")


async def own_job(views: PoolViews, access: Access, job_id: str) -> JobView:
    """Return a job that the client may see. `job_id` is the id of a job or of a completion.

    Raises:
        JobFailed: there is no such job, it belongs to another tenant, or its model isn't allowed.
            All cases have the same error, so that tenants can't discover each other's job ids.
    """
    view = await views.job(job_id_of(job_id))
    return _checked(view, access, job_id)


async def own_job_and_result(
    views: PoolViews, access: Access, job_id: str
) -> tuple[JobView, Result | None]:
    """Return a job that the client may see and its result, if it has one.

    Raises:
        JobFailed: as `own_job`.
    """
    view, result = await views.job_and_result(job_id_of(job_id))
    return _checked(view, access, job_id), result


def job_not_found(job_id: str, *, param: str | None = None) -> JobFailed:
    """Return the failure for the id of a job that the tenant doesn't have."""
    message = f"the job {job_id[:100]!r} doesn't exist or has expired"
    return failed(ErrorCode.JOB_NOT_FOUND, message, param)


def _checked(view: JobView | None, access: Access, job_id: str) -> JobView:
    if view is None or view.tenant != access.tenant or not access.allows(name_of(view.version)):
        raise job_not_found(job_id)
    return view
