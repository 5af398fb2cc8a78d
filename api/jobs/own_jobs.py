"""Lists jobs on behalf of their tenants."""

from api.access.own_job import job_not_found
from api.jobs.list_query import ListQuery
from shared.protocol.access.rights import Access
from shared.store.views.job_view import JobPage
from shared.store.views.pool_views import PoolViews


async def own_jobs(views: PoolViews, access: Access, query: ListQuery) -> JobPage:
    """Return a page of the jobs that the client may see and that match `query`, newest first.

    Raises:
        JobFailed: the tenant doesn't have the job `query.after`.
    """
    page = await views.jobs(
        access.tenant,
        limit=query.limit,
        after=query.after,
        states=query.states,
        model=query.model,
        allows=access.allows,
    )
    if page is None:
        raise job_not_found(query.after or "", param="after")
    return page
