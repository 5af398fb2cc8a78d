"""Enqueues copies of jobs for shadows: candidates that compute answers only for comparison."""

import asyncio

import structlog

from shared.cancel_tasks import cancel_tasks
from shared.errors import LorikeetError
from shared.protocol.enqueue import EnqueueOptions, QueueLimits
from shared.protocol.ids import JobId
from shared.protocol.jobs import Job
from shared.store.adapters.shadows import MAX_PENDING, ShadowPair, Shadows
from shared.store.jobs.queue import Queue

SHADOWS_DEADLINE_S = 600.0
"""Time limit of a copy in seconds. If the copy takes longer, the answers aren't compared."""
MAX_TASKS = 32
"""Maximum number of copies that a front end enqueues at the same time. Further copies are
dropped."""

log = structlog.get_logger()


class ShadowCopies:
    """Enqueues copies of one front end's jobs. Shadows answer the copies.

    If many copies are pending, further copies are dropped.
    """

    def __init__(self, queue: Queue, limits: QueueLimits, shadows: Shadows) -> None:
        self._queue = queue
        self._limits = limits
        self._shadows = shadows
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, original: JobId, copy: Job, *, books_pool: str) -> None:
        """Enqueue a copy in the background. `books_pool` names the pool that has the ledger."""
        if len(self._tasks) >= MAX_TASKS:
            return
        task = asyncio.create_task(self._enqueue(original, copy, books_pool))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Cancel the copies that haven't been enqueued yet."""
        await cancel_tasks(*self._tasks)

    async def _enqueue(self, original: JobId, copy: Job, books_pool: str) -> None:
        try:
            if await self._shadows.num_pending() >= MAX_PENDING:
                return
            options = EnqueueOptions(keeps_running=True, books_pool=books_pool)
            await self._queue.enqueue(copy, self._limits, options=options)
            await self._shadows.add(ShadowPair(original=original, copy=copy.id))
        except LorikeetError as error:
            log.info("shadow_left_out", job_id=original, version=copy.version, error=str(error))
