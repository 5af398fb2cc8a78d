"""With `--durability strict`, repeats writing the ends of jobs to Redis until they are durable."""

import asyncio

import structlog

from shared.errors import RedisUnavailable
from shared.protocol.ids import JobId
from shared.store.jobs.ended_jobs import EndedJob
from shared.store.jobs.queue import Queue

RETRY_S = 0.5
"""Seconds between two attempts to confirm that the ends are durable."""

log = structlog.get_logger()


class DurableEnds:
    """The ends of jobs that Redis may still lose in a failover.

    After a failover, Redis may consider such a job as running on this worker, which has already
    forgotten the job. Another worker would then compute a second answer.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._ended: dict[JobId, EndedJob] = {}
        self._has_ended = asyncio.Event()
        self._lock = asyncio.Lock()

    @property
    def job_ids(self) -> list[JobId]:
        """Ended jobs that may not be durable yet."""
        return list(self._ended)

    def add(self, job: EndedJob) -> None:
        """Add a job that Redis has ended. Has no effect with `--durability default`."""
        if self._queue.is_strict:
            self._ended[job.end.job] = job
            self._has_ended.set()

    async def run(self) -> None:
        """Make each added end durable. Runs until cancelled."""
        while True:
            await self._has_ended.wait()
            await self.settle()

    async def settle(self) -> None:
        """Return once all ends that were added so far are durable. Waits for Redis if necessary."""
        async with self._lock:
            self._has_ended.clear()
            ended = dict(self._ended)
            if ended:
                await self._confirm(list(ended.values()))
            for job_id, job in ended.items():
                if self._ended.get(job_id) is job:
                    del self._ended[job_id]

    async def _confirm(self, ended: list[EndedJob]) -> None:
        while True:
            try:
                return await self._queue.confirm_ends(ended)
            except RedisUnavailable as error:
                log.warning("ends_not_durable", error=str(error))
            await asyncio.sleep(RETRY_S)
