"""Cancels, abandons and attaches jobs in the background, so that requests don't wait for Redis.

To abandon a job is to report that its client has gone. To attach a job is to report that a client
of the job is connected to this process.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import structlog

from api.follow.reply_hub import ClientGone, Inbox, ReplyHub
from shared.errors import JobError, RedisUnavailable
from shared.protocol.ids import ApiId, JobId
from shared.store.jobs.queue import Queue
from shared.store.jobs.sweep import RETURN_MS

RETRY_S = 0.5
FINISH_S = 2.0
"""Maximum seconds for which `CancelQueue.finish` waits for Redis."""
MAX_PENDING = 10_000
"""Maximum number of cancellations that wait while Redis is unavailable.

Further cancellations are dropped, but their jobs still end at their deadlines.
"""

Action = Literal["cancel", "abandon", "attach"]
Call = Callable[[], Awaitable[None]]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Entry:
    action: Action
    """Name of the operation that `call` performs, for the log."""
    job_id: JobId
    call: Call


class CancelQueue:
    """FIFO queue of jobs to cancel, abandon or attach. Jobs wait while Redis is unavailable."""

    def __init__(self, queue: Queue, replies: ReplyHub, api: ApiId, *, grace_ms: int) -> None:
        """Create an empty queue of the process `api`. A job with an open inbox isn't abandoned.

        `grace_ms` is the time in milliseconds that the client of an abandoned job has to come back.
        """
        self._queue = queue
        self._replies = replies
        self._api = api
        self._grace_ms = grace_ms
        self._pending: asyncio.Queue[_Entry] = asyncio.Queue(MAX_PENDING)

    def add(self, job_id: JobId, error: JobError | None = None) -> None:
        """Queue the cancellation of a job. The job ends with `error`; by default, `cancelled`."""
        self._add("cancel", job_id, partial(self._cancel, job_id, error))

    def abandon(self, job_id: JobId, *, may_return: bool = True) -> None:
        """Queue a report that a client of a job has disconnected.

        After the grace period, the job is cancelled unless it has another client or is allowed to
        run without a client. There is no grace period for a client that can't come back.
        """
        grace_ms = self._grace_ms if may_return else 0
        self._add("abandon", job_id, partial(self._abandon, job_id, grace_ms))

    def attach(self, job_id: JobId) -> None:
        """Queue a report that a client of a job is connected to this process."""
        self._add("attach", job_id, partial(self._attach, job_id))

    @contextmanager
    def client(
        self, job_id: JobId, num_choices: int, *, may_return: bool = True
    ) -> Iterator[Inbox]:
        """Open an inbox for a client of a job, and suppress `ClientGone`.

        If the client leaves, or if this process stops before the client has its answer, the job is
        abandoned. After a stop, the client has at least `RETURN_MS` to come back elsewhere.
        `may_return` tells whether a client that leaves could ask for the answer again.
        """
        try:
            with self._replies.open(job_id, num_choices) as inbox:
                yield inbox
        except ClientGone:
            self.abandon(job_id, may_return=may_return)
        finally:
            if inbox.is_handed_over:
                self._add("abandon", job_id, partial(self._abandon, job_id, self._stop_grace_ms))

    async def run(self) -> None:
        """Process the queued jobs in order, until this task is cancelled."""
        while True:
            entry = await self._pending.get()
            try:
                await _until_available(entry.call)
            except Exception:
                log.exception("report_failed", action=entry.action, job_id=entry.job_id)
            finally:
                self._pending.task_done()

    async def finish(self) -> None:
        """Abandon the jobs of the remaining clients, and wait until all queued jobs are processed.

        Called when this process stops. Jobs that aren't processed within `FINISH_S` are counted in
        the log. They are abandoned later, when the pool considers this process dead.
        """
        for job_id in self._replies.jobs:
            self._add("abandon", job_id, partial(self._leave, job_id, self._stop_grace_ms))
        try:
            async with asyncio.timeout(FINISH_S):
                await self._pending.join()
        except TimeoutError:
            log.warning("jobs_not_abandoned", num_jobs=self._pending.qsize())

    @property
    def _stop_grace_ms(self) -> int:
        return max(self._grace_ms, RETURN_MS)

    def _add(self, action: Action, job_id: JobId, call: Call) -> None:
        try:
            self._pending.put_nowait(_Entry(action, job_id, call))
        except asyncio.QueueFull:
            log.warning("report_dropped", action=action, job_id=job_id)

    async def _cancel(self, job_id: JobId, error: JobError | None) -> None:
        state = await self._queue.cancel(job_id, error=error)
        log.info("job_given_up", job_id=job_id, state=state, reason=error and error.code)

    async def _abandon(self, job_id: JobId, grace_ms: int) -> None:
        if not self._replies.has_inbox(job_id):
            await self._leave(job_id, grace_ms)
            await self._attach(job_id)  # if a client has come back meanwhile

    async def _leave(self, job_id: JobId, grace_ms: int) -> None:
        await self._queue.abandon(job_id, self._api, grace_ms=grace_ms)
        log.info("job_abandoned", job_id=job_id)

    async def _attach(self, job_id: JobId) -> None:
        if self._replies.has_inbox(job_id):
            await self._queue.attach(job_id, self._api)


async def _until_available(call: Call) -> None:
    while True:
        try:
            return await call()
        except RedisUnavailable:
            await asyncio.sleep(RETRY_S)
