"""Runs one job and sends its answer, complete or as a stream."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

import structlog
from fastapi import Response
from starlette.types import Message, Receive, Scope, Send

from api.context import Context
from api.errors import job_error_body, json_response
from api.follow.follow_state import Update
from api.follow.follower import Follower
from api.follow.reply_hub import ClientGone, Inbox
from api.follow.transcript import Delta
from api.headers import JOB_HEADER, WARNING_HEADER
from api.metrics.stream_timing import StreamTiming
from api.render.openai_chunks import DONE, KEEP_ALIVE, StreamWriter, complete_body, format_of, sse
from api.requests.ignored_fields import warning
from api.schema.generation import GenerationRequest
from shared.errors import ErrorCode, JobError, JobFailed, RedisUnavailable
from shared.protocol.jobs import Job

KEEP_ALIVE_S = 10.0
"""Seconds between keep-alive comments while a stream has no new chunks.

The response headers of a stream are sent after at most this time, even if no chunk is ready.
"""

log = structlog.get_logger()


class Answer(Response):
    """Response to a request that was accepted as `job`.

    Creating this object doesn't queue the job; `__call__` does. If an error occurs before the
    response headers are sent, the client gets an HTTP error status. If an error occurs later in a
    stream, the client gets an error event. If the client closes its connection, the job is
    cancelled. If this process stops, the job continues, and clients can get the answers from
    /v1/jobs.
    """

    def __init__(self, context: Context, request: GenerationRequest, job: Job) -> None:
        super().__init__()
        self._context = context
        self._job = job
        self._is_stream = bool(request.stream)
        self._extra_headers: dict[str, str] = {JOB_HEADER: job.id}
        if ignored := warning(request):
            self._extra_headers[WARNING_HEADER] = ignored
        options = request.stream_options
        include_usage = options is not None and bool(options.include_usage)
        self._format = format_of(job, stream=self._is_stream)
        self._writer = StreamWriter(self._format, job, include_usage=include_usage)
        self._is_opening_sent = False
        self._timing = StreamTiming(context.metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Queue the job, follow it, and send its answer."""
        scope.setdefault("state", {})["job_id"] = self._job.id
        context = self._context
        with context.replies.open(self._job.id, self._job.num_choices) as inbox:
            await self._enqueue()
            follower = Follower(self._job, inbox, context.views, context.read_checkpoints)
            try:
                async with _watch_client(receive, inbox):
                    if self._is_stream:
                        await self._stream(follower, send)
                    else:
                        await (await self._complete(follower))(scope, receive, send)
            except ClientGone:
                context.cancels.add(self._job.id)
            except Exception as failure:
                self._cancel_unless_ended(follower, failure)
                raise
            finally:
                self._count(follower)

    async def _enqueue(self) -> None:
        try:
            await self._context.queue.enqueue(self._job, self._context.limits)
        except RedisUnavailable:
            self._context.cancels.add(self._job.id)  # the job may be queued despite the error
            raise
        log.info("job_accepted", job_id=self._job.id, version=self._job.version)

    async def _complete(self, follower: Follower) -> Response:
        while not follower.is_done:
            await self._updates(follower)
        assert follower.usage is not None
        body = complete_body(self._format, self._job, follower.transcript.choices, follower.usage)
        return json_response(body, headers=self._extra_headers)

    async def _stream(self, follower: Follower, send: Send) -> None:
        updates = await self._updates(follower)  # an exception here becomes an HTTP status
        await send(_stream_start(self._extra_headers))
        try:
            while not follower.is_done:
                await _send_chunk(send, self._chunks(updates) if updates else KEEP_ALIVE)
                updates = await self._updates(follower)
            assert follower.usage is not None
            last = self._chunks(updates) + self._writer.closing(follower.usage)
        except ClientGone:
            raise
        except Exception as failure:  # noqa: BLE001 -- the status is sent, so it becomes an event
            self._cancel_unless_ended(follower, failure)
            last = sse(job_error_body(_as_error(self._job, failure))) + DONE
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _updates(self, follower: Follower) -> list[Update]:
        updates = await follower.updates(KEEP_ALIVE_S)
        self._timing.record(updates)
        return updates

    def _chunks(self, updates: Iterable[Update]) -> bytes:
        """Return the chunks for `updates`, preceded in the first call by the opening chunks."""
        chunks = [self._writer.delta(update) for update in updates if isinstance(update, Delta)]
        if not self._is_opening_sent:
            self._is_opening_sent = True
            chunks.insert(0, self._writer.opening())
        return b"".join(chunks)

    def _cancel_unless_ended(self, follower: Follower, failure: Exception) -> None:
        if not follower.has_ended:
            error = failure.error if isinstance(failure, JobFailed) else None
            self._context.cancels.add(self._job.id, error)

    def _count(self, follower: Follower) -> None:
        metrics = self._context.metrics
        if follower.usage is not None:
            metrics.count_tokens(self._job.model, follower.usage)
        if follower.error and follower.error.code is ErrorCode.RESUME_DIVERGED:
            metrics.count_divergence()


@asynccontextmanager
async def _watch_client(receive: Receive, inbox: Inbox) -> AsyncIterator[None]:
    """Within the context, call `inbox.mark_client_gone` as soon as the client disconnects."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        inbox.mark_client_gone()

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))


def _stream_start(extra_headers: Mapping[str, str]) -> Message:
    headers = {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",  # nginx would buffer the tokens otherwise
        **extra_headers,
    }
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http.response.start", "status": 200, "headers": raw}


async def _send_chunk(send: Send, chunk: bytes) -> None:
    if chunk:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})


def _as_error(job: Job, failure: Exception) -> JobError:
    if isinstance(failure, JobFailed):
        return failure.error
    log.error("stream_failed", job_id=job.id, exc_info=failure)
    message = f"internal error; the server's log has the details under the job id {job.id}"
    return JobError(code=ErrorCode.INTERNAL, message=message)
