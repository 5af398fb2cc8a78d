"""Accepts jobs that run in the background."""

from collections.abc import Mapping

import structlog
from fastapi import Response

from api.access.own_job import own_job_and_result
from api.answers.draft import Draft
from api.answers.job_description import job_body, job_headers
from api.answers.parts import Following
from api.http.errors import json_response
from api.metrics.request_trace import RequestTrace
from api.responses.stored import retrieved_body
from shared.errors import RedisUnavailable
from shared.protocol.jobs import UNFINISHED, View

log = structlog.get_logger()


async def start_in_background(
    following: Following,
    draft: Draft,
    headers: Mapping[str, str],
    trace: RequestTrace,
    *,
    root_path: str,
) -> Response:
    """Enqueue the job of a request, and return a response that describes the job.

    The function doesn't wait for the answer. The status is 202, or 200 if an earlier request with
    the same idempotency key created the job and the job has ended. The response to a request to
    /v1/responses is the response object, with status 200. The response has the additional
    `headers`. `trace` records which job answers the request. `root_path` is the pool's root path.

    Raises:
        RedisUnavailable: Redis may or may not have accepted the job.
    """
    try:
        enqueued = await draft.enqueue()
        job = draft.job
        view, result = await own_job_and_result(following.views, draft.access, enqueued.id)
        is_accepted = enqueued.is_new or view.state in UNFINISHED
    except RedisUnavailable:
        # Without a key, the client's next attempt creates another job, so this job must not run.
        if draft.options.idempotency is None:
            following.cancels.add(draft.job.id)
        raise
    if enqueued.is_new:
        log.info("job_accepted", job_id=job.id, version=job.version, is_background=True)
    else:
        trace.replay(job, enqueued.id)
    sent = {**headers, **job_headers(enqueued, job.view, root_path)}
    if job.view is View.RESPONSES:
        return json_response(retrieved_body(view, result), headers=sent)
    return json_response(job_body(view, result), 202 if is_accepted else 200, sent)
