"""Reports that this process is alive, so that the pool doesn't abandon its clients' jobs."""

import asyncio
import contextlib
import time

import structlog

from api.follow.cancel_queue import CancelQueue
from api.follow.reply_hub import ReplyHub
from shared.errors import RedisUnavailable
from shared.protocol.ids import ApiId
from shared.store.jobs.queue import Queue
from shared.store.processes import Processes, ProcessKind

BEAT_S = 5.0
"""Seconds between two reports. The pool considers a process dead after a minute without one."""
AWAY_S = 0.5
"""Seconds between two reports while Redis doesn't answer."""
LEAVE_S = 1.0
"""Maximum seconds for the last report."""

log = structlog.get_logger()


class Presence:
    """Reports in the background that this process is alive, and how long Redis was away."""

    def __init__(
        self,
        queue: Queue,
        replies: ReplyHub,
        cancels: CancelQueue,
        processes: Processes,
        api: ApiId,
        *,
        is_internal: bool = False,
    ) -> None:
        self._queue = queue
        self._replies = replies
        self._cancels = cancels
        self._processes = processes
        self._api = api
        self._is_internal = is_internal
        self._away_since_s: float | None = None
        """Time of the first report that failed after the latest successful report."""

    async def run(self) -> None:
        """Report regularly until this task is cancelled."""
        while True:
            try:
                await self._beat()
            except (
                RedisUnavailable
            ):  # `ReplyHub` logs outages, and the next report repeats this one
                self._away_since_s = self._away_since_s or time.monotonic()
            except Exception:
                log.exception("beat_failed")
            await asyncio.sleep(AWAY_S if self._away_since_s else BEAT_S)

    async def finish(self) -> None:
        """Report that this process ends as planned."""
        with contextlib.suppress(RedisUnavailable, TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                await self._processes.end(ProcessKind.FRONT_END, self._api)

    async def _beat(self) -> None:
        """Report once. If the pool considered this process dead, attach it to its jobs again."""
        started_s = time.monotonic()
        if await self._queue.beat_api(self._api, is_internal=self._is_internal):
            for job_id in self._replies.jobs:
                self._cancels.attach(job_id)
        if self._away_since_s is not None:
            await self._processes.record_outage(started_s - self._away_since_s)
            self._away_since_s = None
