from typing import Any

from running_jobs import add_job
from scripted_engine import ScriptedEngine
from worker_support import Client, until

from shared.errors import JobError
from shared.protocol.jobs import JobState
from worker.jobs.deadlines import Deadlines
from worker.jobs.running import RunningJob, RunningJobs


class FakePublisher:
    """Records the jobs that are ended."""

    def __init__(self) -> None:
        self.ended: list[tuple[RunningJob, JobState, JobError | None]] = []

    def end(self, job: RunningJob, state: JobState, error: JobError | None = None) -> None:
        job.conclude(state, error)
        self.ended.append((job, state, error))


def watched(jobs: RunningJobs) -> tuple[Deadlines, FakePublisher]:
    publisher: Any = FakePublisher()
    return Deadlines(jobs, publisher), publisher


def test_a_job_that_has_ended_does_not_expire() -> None:
    jobs = RunningJobs()
    add_job(jobs, left_ms=0).conclude(JobState.DONE)
    watcher, publisher = watched(jobs)
    watcher.end_overdue()
    assert publisher.ended == []


async def test_a_job_whose_deadline_passes_is_ended_by_its_worker(
    client: Client, engine: ScriptedEngine, start
) -> None:
    async with start(engine):
        late = await client.send(max_tokens=900, deadline_ms=700)
        other = await client.send(max_tokens=300)
        end = await client.end_of(late)
        assert (end.state, end.error.code) == (JobState.EXPIRED, "deadline_exceeded")
        assert end.usage.completion_tokens > 0
        assert (await client.end_of(other)).state is JobState.DONE
        await until(lambda: not engine.requests)
