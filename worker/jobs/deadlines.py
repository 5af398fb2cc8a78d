"""Ends running jobs that have passed their deadlines."""

import asyncio
import time
from dataclasses import dataclass

from shared.errors import ErrorCode, JobError
from shared.protocol.jobs import JobState
from worker.jobs.publisher import Publisher
from worker.jobs.running import RunningJobs

CHECK_S = 0.5
PASSED = JobError(
    code=ErrorCode.DEADLINE_EXCEEDED,
    message="the deadline passed before the answer was complete; request fewer tokens, or retry "
    "when the queue is shorter",
)


@dataclass(frozen=True, slots=True, eq=False)
class Deadlines:
    """Ends this worker's overdue jobs, even if their clients have stopped reading."""

    jobs: RunningJobs
    publisher: Publisher

    async def run(self) -> None:
        """End overdue jobs every `CHECK_S` seconds until cancelled."""
        while True:
            self.end_overdue()
            await asyncio.sleep(CHECK_S)

    def end_overdue(self) -> None:
        """End the jobs that have passed their deadlines."""
        now = time.monotonic()
        for job in self.jobs:
            if job.end is None and now >= job.deadline:
                self.publisher.end(job, JobState.EXPIRED, PASSED)
