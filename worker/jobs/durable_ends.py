"""Repeats the ends of jobs until they are durable. Needed only with `--durability strict`."""

import asyncio
from dataclasses import dataclass

import structlog

from shared.errors import RedisUnavailable
from shared.protocol.events import End
from shared.protocol.ids import WorkerId
from shared.protocol.results import Result
from shared.store.queue import Queue
from shared.store.retry import retry_until_available

RETRY_S = 0.5
"""Seconds between two attempts to confirm that the ends are durable."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class EndedJob:
    """The arguments with which a job was ended."""

    wid: WorkerId
    end: End
    result: Result
    claim_epoch: int


class DurableEnds:
    """The ends of jobs that Redis may still lose in a failover.

    After a failover, Redis may consider such a job as running on this worker, which has already
    forgotten the job. Another worker would then compute a second answer.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._ended: list[EndedJob] = []
        self._has_ended = asyncio.Event()
        self._lock = asyncio.Lock()

    def add(self, job: EndedJob) -> None:
        """Add a job that Redis has ended. Has no effect with `--durability default`."""
        if self._queue.is_strict:
            self._ended.append(job)
            self._has_ended.set()

    async def run(self) -> None:
        """Make the ends durable until this task is cancelled."""
        while True:
            await self._has_ended.wait()
            await self.settle()

    async def settle(self) -> None:
        """Return once all ends that were added so far are durable. May wait for Redis."""
        async with self._lock:
            self._has_ended.clear()
            ended, self._ended = self._ended, []
            while ended and not await self._is_durable():
                await asyncio.sleep(RETRY_S)
                for job in ended:
                    await self._repeat(job)

    async def _is_durable(self) -> bool:
        try:
            await self._queue.confirm()
        except RedisUnavailable as error:
            log.warning("ends_not_durable", error=str(error))
            return False
        return True

    async def _repeat(self, job: EndedJob) -> None:
        await retry_until_available(
            lambda: self._queue.finish(job.wid, job.end, job.result, claim_epoch=job.claim_epoch)
        )
