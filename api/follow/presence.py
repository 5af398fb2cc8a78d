"""Reports that this process is alive, so that the pool doesn't abandon its clients' jobs."""

import asyncio

import structlog

from api.follow.cancel_queue import CancelQueue
from api.follow.reply_hub import ReplyHub
from shared.errors import RedisUnavailable
from shared.protocol.ids import ApiId
from shared.store.jobs.queue import Queue

BEAT_S = 5.0
"""Seconds between two reports. The pool considers a process dead after a minute without one."""

log = structlog.get_logger()


class Presence:
    """Reports in the background that this process is alive."""

    def __init__(self, queue: Queue, replies: ReplyHub, cancels: CancelQueue, api: ApiId) -> None:
        self._queue = queue
        self._replies = replies
        self._cancels = cancels
        self._api = api

    async def run(self) -> None:
        """Report regularly until this task is cancelled."""
        while True:
            try:
                await self._beat()
            except RedisUnavailable:
                pass  # `ReplyHub` logs outages, and the next report repeats this one
            except Exception:
                log.exception("beat_failed")
            await asyncio.sleep(BEAT_S)

    async def _beat(self) -> None:
        """Report once. If the pool considered this process dead, attach it to its jobs again."""
        if await self._queue.beat_api(self._api):
            for job_id in self._replies.jobs:
                self._cancels.attach(job_id)
