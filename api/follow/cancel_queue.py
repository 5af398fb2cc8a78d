"""Cancels and abandons jobs in the background, so that requests don't wait for Redis."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from api.follow.reply_hub import ReplyHub
from shared.errors import JobError, RedisUnavailable
from shared.protocol.ids import ApiId, JobId
from shared.store.queue import Queue

RETRY_S = 0.5
MAX_PENDING = 10_000
"""Maximum number of cancellations that wait while Redis is unavailable.

Further cancellations are dropped, but their jobs still end at their deadlines.
"""

log = structlog.get_logger()


class CancelQueue:
    """FIFO queue of jobs to cancel or to abandon. During an outage of Redis, they wait."""

    def __init__(self, queue: Queue, replies: ReplyHub, api: ApiId, *, grace_ms: int) -> None:
        """Create an empty queue.

        Args:
            queue: the pool's queue.
            replies: the inboxes of this process. A job with an inbox isn't abandoned.
            api: id of this process.
            grace_ms: milliseconds that the client of an abandoned job has to come back.
        """
        self._queue = queue
        self._replies = replies
        self._api = api
        self._grace_ms = grace_ms
        self._pending: asyncio.Queue[tuple[JobId, Callable[[], Awaitable[None]]]]
        self._pending = asyncio.Queue(MAX_PENDING)

    def add(self, job_id: JobId, error: JobError | None = None) -> None:
        """Queue the cancellation of a job.

        The job ends with `error`, or with the error `cancelled` if `error` is None.
        """
        self._add(job_id, lambda: self._cancel(job_id, error))

    def abandon(self, job_id: JobId) -> None:
        """Queue the report that a client of a job has gone.

        The job is cancelled after the grace period, unless it keeps running or has another client.
        """
        self._add(job_id, lambda: self._abandon(job_id))

    async def run(self) -> None:
        """Process the queued jobs in order, until this task is cancelled."""
        while True:
            job_id, call = await self._pending.get()
            try:
                await _until_available(call)
            except Exception:
                log.exception("cancel_failed", job_id=job_id)

    def _add(self, job_id: JobId, call: Callable[[], Awaitable[None]]) -> None:
        try:
            self._pending.put_nowait((job_id, call))
        except asyncio.QueueFull:
            log.warning("cancel_dropped", job_id=job_id)

    async def _cancel(self, job_id: JobId, error: JobError | None) -> None:
        state = await self._queue.cancel(job_id, error=error)
        log.info("job_given_up", job_id=job_id, state=state, reason=error and error.code)

    async def _abandon(self, job_id: JobId) -> None:
        if not self._replies.has_inbox(job_id):
            await self._queue.abandon(job_id, self._api, grace_ms=self._grace_ms)
            log.info("job_abandoned", job_id=job_id)
            if self._replies.has_inbox(job_id):  # a client has come back meanwhile
                await self._queue.attach(job_id, self._api)


async def _until_available(call: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            return await call()
        except RedisUnavailable:
            await asyncio.sleep(RETRY_S)
