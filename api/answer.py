"""Runs one job and answers its request with what comes of it, whole or as a stream."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

import structlog
from fastapi import Response
from starlette.types import Message, Receive, Scope, Send

from api.context import Context
from api.errors import JOB_HEADER, job_error_body, json_response
from api.follow.follower import Follower, Step
from api.follow.reply_hub import ClientGone, Inbox
from api.follow.transcript import Delta
from api.metrics.stream_timing import Timing
from api.redis_guard import redis_guard
from api.render.openai_chunks import DONE, KEEP_ALIVE, StreamWriter, shape_of, sse, whole
from api.requests.unused_fields import WARNING_HEADER
from shared.errors import ErrorCode, JobError, JobFailed, RedisUnavailable
from shared.protocol.jobs import Job

KEEP_ALIVE_S = 10.0
"""A stream with nothing to show sends its headers after this long, and then comments."""

log = structlog.get_logger()


class Answer(Response):
    """The response to a request that was accepted as `job`.

    Queues the job when it is sent. An error before the worker admits the job becomes an HTTP
    status; later, in a stream, it becomes an event. When the client leaves, the job is cancelled.
    When this process stops, the job goes on: it can still be looked up.
    """

    def __init__(
        self,
        context: Context,
        job: Job,
        *,
        stream: bool,
        include_usage: bool,
        warning: str | None = None,
    ) -> None:
        super().__init__()
        self._context = context
        self._job = job
        self._is_stream = stream
        self._own_headers = {JOB_HEADER: job.id} | ({WARNING_HEADER: warning} if warning else {})
        self._shape = shape_of(job, stream=stream)
        self._writer = StreamWriter(self._shape, job, include_usage=include_usage)
        self._is_opened = False
        self._timing = Timing(context.metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Queue the job, follow it, and send what comes of it."""
        scope.setdefault("state", {})["job_id"] = self._job.id
        with self._context.replies.open(self._job.id, self._job.num_choices) as inbox:
            await self._enqueue()
            follower = Follower(self._job, inbox, self._context.queue, self._context.shown)
            try:
                async with _watch_client(receive, inbox):
                    if self._is_stream:
                        await self._stream(follower, send)
                    else:
                        await (await self._whole(follower))(scope, receive, send)
            except ClientGone:
                self._context.cancels.add(self._job.id)
            except Exception as failure:
                self._give_up(follower, failure)
                raise
            finally:
                self._record(follower)

    async def _enqueue(self) -> None:
        try:
            async with redis_guard():
                await self._context.queue.enqueue(self._job, self._context.limits)
        except RedisUnavailable:
            self._context.cancels.add(self._job.id)  # it may have been queued all the same
            raise
        log.info("job_accepted", job_id=self._job.id, version=self._job.version)

    async def _whole(self, follower: Follower) -> Response:
        while not follower.is_done:
            await self._steps(follower)
        assert follower.usage is not None
        body = whole(self._shape, self._job, follower.transcript.choices, follower.usage)
        return json_response(body, headers=self._own_headers)

    async def _stream(self, follower: Follower, send: Send) -> None:
        steps = await self._steps(follower)  # what is raised here becomes an HTTP status
        await send(_stream_start(self._own_headers))
        try:
            while not follower.is_done:
                await _write(send, self._events(steps) if steps else KEEP_ALIVE)
                steps = await self._steps(follower)
            assert follower.usage is not None
            last = self._events(steps) + self._writer.closing(follower.usage)
        except ClientGone:
            raise
        except Exception as failure:  # noqa: BLE001 -- the status is sent: it becomes an event
            self._give_up(follower, failure)
            last = sse(job_error_body(_as_error(self._job, failure))) + DONE
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _steps(self, follower: Follower) -> list[Step]:
        steps = await follower.steps(KEEP_ALIVE_S)
        self._timing.note(steps)
        return steps

    def _events(self, steps: Iterable[Step]) -> bytes:
        """The chunks for `steps`, with the stream's opening in front of the first."""
        chunks = [self._writer.delta(step) for step in steps if isinstance(step, Delta)]
        if not self._is_opened:
            self._is_opened = True
            chunks.insert(0, self._writer.opening())
        return b"".join(chunks)

    def _give_up(self, follower: Follower, failure: Exception) -> None:
        if not follower.is_ended:
            error = failure.error if isinstance(failure, JobFailed) else None
            self._context.cancels.add(self._job.id, error)

    def _record(self, follower: Follower) -> None:
        metrics = self._context.metrics
        if follower.usage is not None:
            metrics.tokens(self._job.model, follower.usage)
        if follower.failure and follower.failure.code is ErrorCode.RESUME_DIVERGED:
            metrics.diverged()


@asynccontextmanager
async def _watch_client(receive: Receive, inbox: Inbox) -> AsyncIterator[None]:
    """Tell `inbox` when the client closes its connection."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        inbox.client_gone()

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))


def _stream_start(own: Mapping[str, str]) -> Message:
    headers = {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",  # nginx would hold the tokens back
        **own,
    }
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http.response.start", "status": 200, "headers": raw}


async def _write(send: Send, chunk: bytes) -> None:
    if chunk:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})


def _as_error(job: Job, failure: Exception) -> JobError:
    if isinstance(failure, JobFailed):
        return failure.error
    log.error("stream_failed", job_id=job.id, exc_info=failure)
    return JobError(code=ErrorCode.INTERNAL, message="an internal error; the log has the job's id")
