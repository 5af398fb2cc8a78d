"""Waits for jobs, and returns their answers as results of futures."""

import asyncio
from contextlib import suppress
from functools import partial

from fastapi import Response

from api.access.own_job import own_job_and_result
from api.answers.delivery import STOPPING
from api.answers.parts import Following
from api.follow.follower import Follower
from api.follow.reply_hub import ServerStopping
from api.follow.transcript import ChoiceTranscript
from api.http.errors import json_response
from api.tinker.sample_response import MEDIA_TYPE, encode_response
from api.tinker.translate import TOP_SAMPLE
from shared.errors import JobError, JobFailed, invalid_param
from shared.protocol.access.rights import Access
from shared.protocol.jobs import UNFINISHED, JobState
from shared.store.views.job_view import JobView

WAIT_S = 20.0
"""Maximum seconds for which a request waits for a job. The client then sends it again."""
TRY_AGAIN = {"type": "try_again", "queue_state": "active"}


async def future_response(following: Following, access: Access, job_id: str) -> Response:
    """Return a job's answer as protobuf, its error as JSON, or status 408 if it still runs.

    Raises:
        JobFailed: the client has no such job, or this process stops.
        RedisUnavailable: the job can't be read.
    """
    view, result = await own_job_and_result(following.views, access, job_id)
    if TOP_SAMPLE not in (view.spec.request or {}):
        raise invalid_param("request_id", "isn't a request for samples")
    if view.state in UNFINISHED:
        await _wait(following, view)
        view, result = await own_job_and_result(following.views, access, job_id)
    if view.state in UNFINISHED or result is None:
        return json_response({**TRY_AGAIN, "request_id": job_id}, 408)
    if view.state is not JobState.DONE or result.usage is None:
        return json_response(_failure(view.error))
    choices = [ChoiceTranscript.of(choice) for choice in result.choices]
    body = encode_response(view.spec, choices, result.usage)
    return Response(body, media_type=MEDIA_TYPE)


async def _wait(following: Following, view: JobView) -> None:
    """Wait until a job has ended, but at most `WAIT_S` seconds."""
    attach = partial(following.queue.attach, api=following.api_id)
    with following.cancels.client(view.id, view.spec.num_choices) as inbox:
        follower = Follower(
            *(view.spec, inbox, following.views, following.read_checkpoints),
            left_ms=view.left_ms,
            attach=attach,
        )
        try:
            with suppress(TimeoutError, JobFailed):
                async with asyncio.timeout(WAIT_S):
                    while not follower.is_done:
                        await follower.updates(WAIT_S)
        except ServerStopping:
            raise JobFailed(STOPPING) from None


def _failure(error: JobError | None) -> dict[str, str]:
    message = error.message if error else "the job has no answer"
    return {"error": message, "category": "user" if error and error.status < 500 else "server"}
