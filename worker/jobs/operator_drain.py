"""Follows the mode that operators set for the worker, and hands over its jobs while it drains.

The pool gives a paused or draining worker no jobs (`claim.lua`).
"""

import asyncio
import time

import structlog

from shared.protocol.workers import WorkerMode
from worker.jobs.consumer import Consumer
from worker.jobs.running import RunningJobs

EVERY_S = 1.0
"""While the worker drains, seconds between two checks for jobs to hand over."""

log = structlog.get_logger()


class OperatorDrain:
    """Hands over the jobs that a draining worker hasn't finished in time."""

    def __init__(self, jobs: RunningJobs, consumer: Consumer, *, drain_s: float) -> None:
        """Create the actor. Running jobs have `drain_s` seconds to finish."""
        self._jobs = jobs
        self._consumer = consumer
        self._drain_s = drain_s
        self._is_draining = asyncio.Event()
        self._due_s = 0.0
        """Time at which the jobs are handed over, on the monotonic clock."""
        self.mode = WorkerMode.SERVING
        """Mode of the worker, as of its latest heartbeat."""

    def set_mode(self, mode: WorkerMode) -> None:
        """Begin or end a drain if the mode has changed."""
        if mode is self.mode:
            return
        log.info("worker_mode", mode=mode.shown, jobs=len(self._jobs))
        self.mode = mode
        if mode is WorkerMode.DRAINING:
            self._due_s = time.monotonic() + self._drain_s
            self._is_draining.set()
        else:
            self._is_draining.clear()

    async def run(self) -> None:
        """Hand over jobs until cancelled. A late claim may add jobs after the first handover."""
        while True:
            await self._is_draining.wait()
            if time.monotonic() >= self._due_s:
                await self._hand_over()
            await asyncio.sleep(EVERY_S)

    async def _hand_over(self) -> None:
        jobs = [job for job in self._jobs if job.end is None]
        if jobs:
            await self._consumer.hand_over(jobs)
            log.info("jobs_handed_over", job_ids=[job.id for job in jobs])
