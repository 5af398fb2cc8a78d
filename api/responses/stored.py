"""Finds responses that were stored as jobs, and builds their objects and conversations."""

from typing import Any

import orjson

from api.access.own_job import own_job_and_result
from api.follow.transcript import ChoiceTranscript
from api.render.blocks import BlockReader, read_blocks
from api.responses.body import finished_body, output_items, response_body
from api.responses.items import Item, checked_items, stored_input
from shared.errors import ErrorCode, JobFailed, failed
from shared.protocol.access.rights import Access
from shared.protocol.answers import AnswerSpec
from shared.protocol.ids import RESPONSE_PREFIX
from shared.protocol.jobs import JobState, View
from shared.protocol.results import Result
from shared.store.views.job_view import JobView
from shared.store.views.pool_views import PoolViews

PREVIOUS = "previous_response_id"
_STATUSES = {
    JobState.QUEUED: "queued",
    JobState.RUNNING: "in_progress",
    JobState.CANCELLED: "cancelled",
}
"""Status of a response, by the state of its job. In all other states except DONE, the status is
`failed`."""


async def own_response(
    views: PoolViews, access: Access, response_id: str
) -> tuple[JobView, Result | None]:
    """Return the job of a stored response of this tenant, and the job's result or None.

    Raises:
        JobFailed: there is no such response, it isn't stored, or it belongs to another tenant.
    """
    if response_id.startswith(RESPONSE_PREFIX):
        view, result = await own_job_and_result(views, access, response_id)
        if view.spec.view is View.RESPONSES and stored_input(view.spec) is not None:
            return view, result
    message = f"the response {response_id[:100]!r} doesn't exist, isn't stored, or has expired"
    raise failed(ErrorCode.JOB_NOT_FOUND, message)


async def earlier_items(
    views: PoolViews, access: Access, response_id: str | None, *, max_bytes: int
) -> list[Item]:
    """Return the items of the conversation that a request continues; none without `response_id`.

    `max_bytes` is the maximum size of a request's body.

    Raises:
        JobFailed: the tenant has no such response, the response isn't completed, or the
            conversation is larger than a request may be.
    """
    if response_id is None:
        return []
    try:
        view, result = await own_response(views, access, response_id)
    except JobFailed:
        reason = f"the response {response_id[:100]!r} doesn't exist or isn't stored"
        raise _refusal(reason) from None
    if result is None or result.state is not JobState.DONE:
        raise _refusal(f"the response {response_id!r} isn't completed")
    items = conversation(view.spec, result)
    if len(orjson.dumps(items)) > max_bytes:
        message = f"{PREVIOUS}: the conversation has more than {max_bytes} bytes, which "
        message += "--max-body-bytes allows; send a shorter one as input"
        raise failed(ErrorCode.REQUEST_TOO_LARGE, message, PREVIOUS)
    return items


def _refusal(reason: str) -> JobFailed:
    message = f"{PREVIOUS}: {reason}"
    return failed(ErrorCode.PREVIOUS_RESPONSE_NOT_FOUND, message, PREVIOUS)


def retrieved_body(view: JobView, result: Result | None) -> dict[str, Any]:
    """Return the response object of a job in its current state."""
    if result is None or result.state is not JobState.DONE:
        status = _STATUSES.get(view.state, "failed")
        error = view.error if status == "failed" else None
        return response_body(view.spec, status=status, error=error)
    reader = _reader(view.spec, result)
    assert result.usage is not None
    return finished_body(view.spec, reader, result.usage)


def conversation(spec: AnswerSpec, result: Result) -> list[Item]:
    """Return the input and the output of a stored response that is done, as checked items."""
    output = output_items(spec, _reader(spec, result).blocks)
    return [*(stored_input(spec) or ()), *checked_items(output)]


def _reader(spec: AnswerSpec, result: Result) -> BlockReader:
    (choice,) = result.choices
    return read_blocks(spec, ChoiceTranscript.of(choice))
