"""Sends the answer of one job to one client, complete or as a stream."""

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass
from typing import Any

import structlog
from starlette.types import Message, Receive, Scope, Send

from api.answers.parts import Following
from api.follow.follower import Follower
from api.follow.reply_hub import ClientGone, Inbox, ServerStopping
from api.follow.updates import Update
from api.formats import (
    AnyPosition,
    Stream,
    partial_body,
    shows_partial,
    stream_of,
    whole_body,
)
from api.http.errors import json_response
from api.metrics.stream_timing import StreamTiming
from api.render.catch_up import Misplaced
from api.render.durations import Durations
from api.render.sse import sse_comment
from shared.errors import ErrorCode, JobError, JobFailed, RedisUnavailable
from shared.protocol.answers import AnswerSpec
from shared.protocol.ids import JobId
from shared.store.views.pool_views import PoolViews, Wait

KEEP_ALIVE = sse_comment("keep-alive")
KEEP_ALIVE_S = 10.0
"""Seconds between keep-alive comments while a stream has no new chunks.

The response headers of a stream are sent after at most this time, even if no chunk is ready.
"""
READ_S = 0.5
"""Maximum seconds for reading a job's place in the queue. New output has to wait for the read."""
STOPPING = JobError(
    code=ErrorCode.SERVER_STOPPING,
    message="this server stops; the job goes on for at least a minute, and to its end if its "
    "client comes back to it at another server of the pool",
)
MISPLACED = JobError(
    code=ErrorCode.RESUME_DIVERGED,
    message="the answer doesn't have the text that precedes this event id; start the stream "
    "again without an id",
)

log = structlog.get_logger()


@dataclass(slots=True)
class Delivery:
    """Follows one job and sends its answer.

    If the client leaves or this process stops, callers must abandon the job. If the delivery fails
    for another reason, this class cancels or abandons it (`is_only_client`).
    """

    following: Following
    spec: AnswerSpec
    inbox: Inbox
    """Inbox that `follower` reads. It is interrupted when the client leaves."""
    follower: Follower
    _: KW_ONLY
    headers: Mapping[str, str]
    """Additional headers of a successful response."""
    timing: StreamTiming | None = None
    """Measures when the tokens of the answer arrive. None if another process may have received the
    first tokens."""
    is_only_client: bool = True
    """Whether a failure of the delivery cancels the job. Otherwise, the job is abandoned, since it
    may have other clients."""
    error: JobError | None = None
    """Error that ended the stream; None if the stream hasn't failed."""

    async def send_whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the complete answer once the job is done.

        Raises:
            JobFailed: the job failed, or this process stops.
            ClientGone: the client has closed its connection.
        """
        async with self._watched(receive):
            body = await self._whole()
            await json_response(body, headers=self.headers)(scope, receive, send)

    async def send_stream(
        self, receive: Receive, send: Send, *, after: AnyPosition | None = None
    ) -> None:
        """Send the answer as a stream.

        The response of a new stream starts with the first output, or after `KEEP_ALIVE_S` seconds.
        With `after`, the stream continues an earlier stream after this position. In this case, the
        response starts at once, so that an error of the job is always an event.

        Raises:
            JobFailed: before the response started, the job failed or this process stopped.
            ClientGone: the client has closed its connection, or the answer doesn't match the
                position `after`.
        """
        writer = stream_of(self.spec, after, self._durations)
        async with self._watched(receive):
            try:
                updates = [] if after else await self._updates()
            except JobFailed as failure:
                if not shows_partial(self.spec, failure.error):
                    raise
                updates = []  # the next wait raises the error again
            await send(_stream_start(writer.media_type, self.headers))
            await self._send_events(writer, updates, send)

    async def _whole(self) -> Any:
        """Wait for the end of the job, and return the body of the answer."""
        follower = self.follower
        try:
            while not follower.is_done:
                await self._updates()
        except JobFailed as failure:
            if not shows_partial(self.spec, failure.error):
                raise
            return partial_body(self.spec, follower.transcript.choices, failure.error)
        assert follower.usage is not None
        choices, durations = follower.transcript.choices, self._durations()
        return whole_body(self.spec, choices, follower.usage, durations)

    @asynccontextmanager
    async def _watched(self, receive: Receive) -> AsyncIterator[None]:
        """Watch for a disconnect during the block. Cancel or abandon the job after a failure."""
        watch = asyncio.create_task(self._watch(receive))
        try:
            yield
        except ClientGone:
            raise
        except ServerStopping:
            raise JobFailed(STOPPING) from None
        except Exception as failure:
            self._give_up(failure)
            raise
        finally:
            watch.cancel()
            await asyncio.wait((watch,))

    async def _watch(self, receive: Receive) -> None:
        """Interrupt the inbox as soon as the client disconnects."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.inbox.interrupt(ClientGone())

    async def _send_events(self, writer: Stream, updates: list[Update], send: Send) -> None:
        """Send all events, beginning with those for `updates`, and end the response."""
        try:
            while not self.follower.is_done:
                await _send_part(send, await self._events(writer, updates))
                updates = await self._updates()
            assert self.follower.usage is not None
            last = writer.chunks(updates) + writer.closing(self.follower.usage)
        except ClientGone:
            raise
        except ServerStopping:
            self.error = STOPPING
            last = writer.interruption(STOPPING)
        except Misplaced:
            await _send_part(send, writer.failure(MISPLACED), is_last=True)
            raise ClientGone from None
        except Exception as failure:  # noqa: BLE001 -- the status is sent, so it becomes an event
            self._give_up(failure)
            self.error = _as_error(self.spec.id, failure)
            last = writer.failure(self.error)
        await _send_part(send, last, is_last=True)

    async def _events(self, writer: Stream, updates: list[Update]) -> bytes:
        """Return the events for `updates`; if it is empty, bytes that keep the stream alive."""
        if updates:
            return writer.chunks(updates)
        return writer.idle or await keep_alive(self.following.views, self.spec.id)

    def _durations(self) -> Durations | None:
        return self.timing.durations if self.timing else None

    async def _updates(self) -> list[Update]:
        updates = await self.follower.updates(KEEP_ALIVE_S)
        if self.timing:
            self.timing.record(updates)
        return updates

    def _give_up(self, failure: Exception) -> None:
        """Cancel or abandon the job unless it has ended."""
        if self.follower.has_ended:
            return
        if not self.is_only_client:
            self.following.cancels.abandon(self.spec.id)
        else:
            error = failure.error if isinstance(failure, JobFailed) else None
            self.following.cancels.add(self.spec.id, error)


async def keep_alive(views: PoolViews, job_id: JobId) -> bytes:
    """Return a comment that states the place of a job in the queue.

    Returns `KEEP_ALIVE` if the job isn't waiting, or if Redis doesn't answer within `READ_S`.
    """
    try:
        async with asyncio.timeout(READ_S):
            return comment(await views.wait(job_id))
    except (RedisUnavailable, TimeoutError):
        return KEEP_ALIVE


def comment(wait: Wait | None) -> bytes:
    """Return the comment that states a job's place in the queue. `wait` contains the place.

    `wait` is None if the job isn't waiting. In this case, the function returns `KEEP_ALIVE`.
    """
    if wait is None:
        return KEEP_ALIVE
    text = f"waiting, position {wait.position} of {wait.num_waiting}"
    if wait.estimated_s is not None:
        text += f", about {math.ceil(wait.estimated_s)} s"
    return sse_comment(text)


def _stream_start(media_type: str, headers: Mapping[str, str]) -> Message:
    all_headers = {
        "content-type": f"{media_type}; charset=utf-8",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",  # nginx would buffer the tokens otherwise
        **headers,
    }
    raw = [(name.lower().encode(), value.encode()) for name, value in all_headers.items()]
    return {"type": "http.response.start", "status": 200, "headers": raw}


async def _send_part(send: Send, part: bytes, *, is_last: bool = False) -> None:
    if part or is_last:
        await send({"type": "http.response.body", "body": part, "more_body": not is_last})


def _as_error(job_id: JobId, failure: Exception) -> JobError:
    if isinstance(failure, JobFailed):
        return failure.error
    log.error("stream_failed", job_id=job_id, exc_info=failure)
    message = f"internal error; the server's log has the details under the job id {job_id}"
    return JobError(code=ErrorCode.INTERNAL, message=message)
