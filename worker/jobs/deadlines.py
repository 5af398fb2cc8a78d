"""Ends running jobs whose deadlines have passed."""

import asyncio
import time

from shared.errors import ErrorCode, JobError
from shared.protocol.jobs import JobState
from worker.jobs.publisher import Publisher
from worker.jobs.running import RunningJobs

LOOK_S = 0.5
PASSED = JobError(
    code=ErrorCode.DEADLINE_EXCEEDED,
    message="the deadline passed before the answer was complete; ask for fewer tokens, or try "
    "again when less is waiting",
)


class Deadlines:
    """Watches what this worker runs: clients that don't read can't keep a job alive."""

    def __init__(self, jobs: RunningJobs, publisher: Publisher) -> None:
        self._jobs = jobs
        self._publisher = publisher

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_S)

    def look(self) -> None:
        """End what is overdue now."""
        now = time.monotonic()
        for job in self._jobs:
            if job.end is None and now >= job.deadline:
                self._publisher.end(job, JobState.EXPIRED, PASSED)
