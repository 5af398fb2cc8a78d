"""Finds stored responses on behalf of their tenants."""

import orjson

from api.access.own_job import own_job_and_result
from api.responses.items import Item
from api.responses.stored import conversation, is_stored
from shared.errors import ErrorCode, JobError, JobFailed, failed
from shared.protocol.access.rights import Access
from shared.protocol.ids import RESPONSE_PREFIX
from shared.protocol.jobs import JobState
from shared.protocol.results import Result
from shared.store.views.job_view import JobView
from shared.store.views.pool_views import PoolViews

PREVIOUS = "previous_response_id"


async def own_response(
    views: PoolViews, access: Access, response_id: str
) -> tuple[JobView, Result | None]:
    """Return the job of a stored response of this tenant, and its result, if it has one.

    Raises:
        JobFailed: there is no such response, it isn't stored, or it belongs to another tenant.
    """
    if response_id.startswith(RESPONSE_PREFIX):
        view, result = await own_job_and_result(views, access, response_id)
        if is_stored(view):
            return view, result
    raise JobFailed(_not_found(response_id))


async def earlier_items(
    views: PoolViews, access: Access, response_id: str | None, *, max_bytes: int
) -> list[Item]:
    """Return the items of the conversation that a request continues, or none without an id.

    `max_bytes` is the size that the body of a request may have.

    Raises:
        JobFailed: the tenant has no such response, the response isn't completed, or the
            conversation is larger than a request may be.
    """
    if response_id is None:
        return []
    try:
        view, result = await own_response(views, access, response_id)
    except JobFailed:
        raise _refusal(
            f"the response {response_id[:100]!r} doesn't exist or isn't stored"
        ) from None
    if result is None or result.state is not JobState.DONE:
        raise _refusal(f"the response {response_id!r} isn't completed")
    items = conversation(view.spec, result)
    if len(orjson.dumps(items)) > max_bytes:
        message = (
            f"{PREVIOUS}: the conversation has more than {max_bytes} bytes, which --max-body-bytes"
        )
        message += " allows; send a shorter one as input"
        raise failed(ErrorCode.REQUEST_TOO_LARGE, message, PREVIOUS)
    return items


def _refusal(reason: str) -> JobFailed:
    message = f"{PREVIOUS}: {reason}"
    return failed(ErrorCode.PREVIOUS_RESPONSE_NOT_FOUND, message, PREVIOUS)


def _not_found(response_id: str) -> JobError:
    message = f"the response {response_id[:100]!r} doesn't exist, isn't stored, or has expired"
    return JobError(code=ErrorCode.JOB_NOT_FOUND, message=message)
