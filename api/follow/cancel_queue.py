"""Cancels jobs in the background, so that who gives one up needn't wait for Redis."""

import asyncio

import structlog

from api.redis_guard import is_cancelled, redis_guard
from shared.errors import JobError, RedisUnavailable
from shared.protocol.ids import JobId
from shared.store.queue import Queue

RETRY_S = 0.5
MAX_PENDING = 10_000
"""While Redis is away for long; a job that is forgotten still has its deadline."""

log = structlog.get_logger()


class Cancels:
    """Jobs to cancel, also those that were given up while Redis was away."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._pending: asyncio.Queue[tuple[JobId, JobError | None]] = asyncio.Queue(MAX_PENDING)

    def add(self, job_id: JobId, error: JobError | None = None) -> None:
        """Cancel the job soon; `error` is what it ends with, by default `cancelled`."""
        try:
            self._pending.put_nowait((job_id, error))
        except asyncio.QueueFull:
            log.warning("cancel_dropped", job_id=job_id)

    async def run(self) -> None:
        """Cancel jobs until cancelled itself, oldest first."""
        while not is_cancelled():
            job_id, error = await self._pending.get()
            try:
                await self._cancel(job_id, error)
            except Exception:
                log.exception("cancel_failed", job_id=job_id)

    async def _cancel(self, job_id: JobId, error: JobError | None) -> None:
        while not is_cancelled():
            try:
                async with redis_guard():
                    state = await self._queue.cancel(job_id, error=error)
            except RedisUnavailable:
                await asyncio.sleep(RETRY_S)
            else:
                log.info("job_given_up", job_id=job_id, state=state, reason=error and error.code)
                return
