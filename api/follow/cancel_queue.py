"""Cancels jobs in the background, so that requests don't wait for Redis."""

import asyncio

import structlog

from shared.errors import JobError, RedisUnavailable
from shared.protocol.ids import JobId
from shared.store.queue import Queue

RETRY_S = 0.5
MAX_PENDING = 10_000
"""Maximum number of cancellations that wait while Redis is unavailable.

Further cancellations are dropped, but their jobs still end at their deadlines.
"""

log = structlog.get_logger()


class CancelQueue:
    """FIFO queue of jobs to cancel. During an outage of Redis, cancellations wait."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._pending: asyncio.Queue[tuple[JobId, JobError | None]] = asyncio.Queue(MAX_PENDING)

    def add(self, job_id: JobId, error: JobError | None = None) -> None:
        """Queue the cancellation of a job.

        The job ends with `error`, or with the error `cancelled` if `error` is None.
        """
        try:
            self._pending.put_nowait((job_id, error))
        except asyncio.QueueFull:
            log.warning("cancel_dropped", job_id=job_id)

    async def run(self) -> None:
        """Process the queued cancellations in order, until this task is cancelled."""
        while True:
            job_id, error = await self._pending.get()
            try:
                await self._cancel(job_id, error)
            except Exception:
                log.exception("cancel_failed", job_id=job_id)

    async def _cancel(self, job_id: JobId, error: JobError | None) -> None:
        while True:
            try:
                state = await self._queue.cancel(job_id, error=error)
            except RedisUnavailable:
                await asyncio.sleep(RETRY_S)
            else:
                log.info("job_given_up", job_id=job_id, state=state, reason=error and error.code)
                return
