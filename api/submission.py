"""Turns a request for an answer into a job and its response."""

from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import Request, Response

from api.admission import admit
from api.answer import Answer
from api.context import Context
from api.headers import PREFERENCE_APPLIED_HEADER, STRICT_HANDLING, WARNING_HEADER
from api.http.body import read_json_object
from api.jobs.background import start_in_background
from api.requests.enqueue_options import enqueue_options
from api.requests.ignored_fields import warning
from api.requests.request_headers import read_request_headers
from api.requests.translate import Admission
from api.requests.unknown_fields import refuse_unknown
from api.schema.base import JobRequest
from shared.protocol.jobs import Job

R = TypeVar("R", bound=JobRequest)


async def submit(
    request: Request,
    context: Context,
    tenant: str,
    parse: Callable[[dict[str, Any]], R],
    job_of: Callable[[R, Admission], Job],
) -> Response:
    """Return the response to a request for an answer.

    Args:
        request: the HTTP request.
        context: the app's context.
        tenant: tenant of the request.
        parse: validates the JSON body of the endpoint's requests.
        job_of: makes a job of a valid request.

    Raises:
        JobFailed: the request is invalid, or its model can't serve it.
        QueueFull: the request runs in the background, and a limit of the queue is reached.
        RedisUnavailable: Redis can't be reached.
    """
    raw = await read_json_object(request, context.settings.max_body_bytes)
    return await submit_json(request, context, tenant, raw, parse, job_of)


async def submit_json(
    request: Request,
    context: Context,
    tenant: str,
    raw: dict[str, Any],
    parse: Callable[[dict[str, Any]], R],
    job_of: Callable[[R, Admission], Job],
) -> Response:
    """Return the response to a request for an answer whose body, `raw`, was read already.

    The other arguments and the errors are those of `submit`.
    """
    headers = read_request_headers(request.headers, max_deadline_s=context.settings.deadline_s)
    request.state.is_strict = headers.is_strict
    body = parse(raw)
    if headers.is_strict:
        refuse_unknown(body)
    weight = context.settings.weight_by_tenant.get(tenant, 1.0)
    options = enqueue_options(headers, body, path=request.url.path, raw=raw, weight=weight)
    admission = await admit(context, tenant, body.model, deadline_s=headers.deadline_s)
    job = job_of(body, admission)
    answer_headers = _answer_headers(body, is_strict=headers.is_strict)
    if not body.background or body.stream:
        return Answer(context, body, job, options, answer_headers)
    request.state.job_id = job.id
    return await start_in_background(context, job, options, answer_headers)


def _answer_headers(body: JobRequest, *, is_strict: bool) -> dict[str, str]:
    """Return the headers that tell the client how its fields were treated."""
    headers = {PREFERENCE_APPLIED_HEADER: STRICT_HANDLING} if is_strict else {}
    ignored = warning(body)
    return {**headers, WARNING_HEADER: ignored} if ignored else headers
