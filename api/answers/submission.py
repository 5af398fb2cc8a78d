"""Turns a request for an answer into a job and its response."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from fastapi import Request, Response

from api.adapters.candidate_key import request_key
from api.answers.answer import Answer
from api.answers.background import start_in_background
from api.answers.draft import Draft, Wanted
from api.answers.parts import Following, Intake
from api.answers.remote_images import with_remote_images
from api.http.body import read_json_object
from api.http.headers import PREFERENCE_APPLIED_HEADER, STRICT_HANDLING, WARNING_HEADER
from api.http.turns.body_checks import begin_check
from api.metrics.request_trace import RequestTrace
from api.pools.pools import pools_of
from api.requests.ignored_fields import NO_OTHERS, OtherFields, all_unknown, warning
from api.requests.request_headers import RequestHeaders, enqueue_options, read_request_headers
from api.requests.translate import Admission
from api.requests.unknown_fields import refuse_unknown
from api.requests.viewed import ViewedRequest
from api.schema.base import JobRequest, RequestModel
from shared.protocol.access.rights import Access
from shared.protocol.jobs import Job

B = TypeVar("B", bound=RequestModel)
R = TypeVar("R", bound=JobRequest)


async def submit(
    request: Request,
    access: Access,
    parse: Callable[[dict[str, Any]], R],
    job_of: Callable[[R, Admission], Job],
) -> Response:
    """Return the response to a request for an answer.

    `parse` validates the JSON body of the endpoint's requests, and `job_of` makes a job of a valid
    request.

    Raises:
        JobFailed: the request is invalid, or its model can't serve it.
        QueueFull: the request runs in the background, and a limit of the queue is reached.
        RateLimited: the request runs in the background, and a limit of its API key is reached.
        RedisUnavailable: Redis can't be reached.
    """
    raw = await read_json_object(request)
    return await submit_json(request, access, raw, parse, job_of)


async def submit_json(
    request: Request,
    access: Access,
    raw: dict[str, Any],
    parse: Callable[[dict[str, Any]], R],
    job_of: Callable[[R, Admission], Job],
) -> Response:
    """Do the same as `submit` for a request whose body, `raw`, has been read already."""
    body = await with_remote_images(request, access, raw)
    return await _submit(request, access, raw, partial(parse, body), job_of)


async def submit_viewed(
    request: Request, access: Access, raw: dict[str, Any], viewed: ViewedRequest
) -> Response:
    """Do the same as `submit_json` for a request of another API.

    `viewed` is the request in the form of a request to one of OpenAI's endpoints.
    """
    return await _submit(request, access, raw, viewed.parse, viewed.job, viewed.others)


async def _submit(
    request: Request,
    access: Access,
    raw: dict[str, Any],
    parse: Callable[[], R],
    job_of: Callable[[R, Admission], Job],
    others: OtherFields = NO_OTHERS,
) -> Response:
    pool = await pools_of(request).of_model(request, raw.get("model"))
    intake, following = pool.part(Intake), pool.part(Following)
    trace = RequestTrace.begin(intake.tracer, request)

    async def drafted() -> tuple[R, dict[str, str], Draft]:
        async with intake.turns.turn(access.tenant):
            await begin_check(request)
            body, headers, answer_headers = parse_request(request, parse, others)
            options = enqueue_options(
                headers,
                body,
                path=request.url.path,
                raw=raw,
                weight=intake.settings.weight_of(access.tenant),
                key_id=access.key_id,
                books_pool=access.books_pool,
                only_repeats=getattr(request.state, "is_repeated", False),
            )
            wanted = Wanted(
                model=body.model,
                key=request_key(access, raw),
                job_of=lambda admission: replace(
                    job_of(body, admission), is_preemptible=is_preemptible(request)
                ),
                accept=lambda job: trace.accept(job, is_stream=bool(body.stream)),
            )
            draft = await Draft.of(intake, access, wanted, options, deadline_s=headers.deadline_s)
        return body, answer_headers, draft

    try:
        # Loading an unknown adapter may take long, so the request gives up its turn for that time.
        body, answer_headers, draft = await intake.on_demand.with_adapter(
            access, raw.get("model"), drafted
        )
        if not body.background or body.stream:
            return Answer(following, body, draft, answer_headers, trace)
        request.state.job_id = draft.job.id
        response = await start_in_background(
            following, draft, answer_headers, trace, root_path=pool.root_path
        )
    except BaseException as failure:
        trace.end(failure)
        raise
    trace.end()
    return response


def is_preemptible(request: Request) -> bool:
    """Return whether a request belongs to a batch. Such requests use idle capacity only."""
    return getattr(request.state, "is_preemptible", False)


def parse_request(
    request: Request, parse: Callable[[], B], others: OtherFields = NO_OTHERS
) -> tuple[B, RequestHeaders, dict[str, str]]:
    """Return a request's validated body, the options in its headers, and response headers.

    `parse` validates the body. `others` are fields of the request that the validated body doesn't
    have. The response headers list the fields that were ignored, and state whether unknown fields
    are refused.

    Raises:
        JobFailed: the body or a header is invalid, or a field is unknown and the client asked for
            strict handling.
    """
    headers = read_request_headers(request.headers, max_deadline_s=request.app.state.max_deadline_s)
    request.state.is_strict = headers.is_strict
    body = parse()
    answer_headers = {}
    if headers.is_strict:
        refuse_unknown(all_unknown(body, others))
        answer_headers[PREFERENCE_APPLIED_HEADER] = STRICT_HANDLING
    if not_used := warning(body, others):
        answer_headers[WARNING_HEADER] = not_used
    return body, headers, answer_headers
