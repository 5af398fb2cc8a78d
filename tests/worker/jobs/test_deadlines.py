import asyncio
from typing import Any

import pytest
from running_jobs import add_job
from scripted_engine import ScriptedEngine
from worker_support import Client, until

from shared.cancel_tasks import cancel_tasks
from shared.errors import ErrorCode, JobError
from shared.protocol.jobs import JobState
from worker.jobs import deadlines
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


def test_an_overdue_job_expires_with_an_error() -> None:
    jobs = RunningJobs()
    overdue = add_job(jobs, left_ms=0)
    add_job(jobs, left_ms=60_000)
    watcher, publisher = watched(jobs)
    watcher.end_overdue()
    ((job, state, error),) = publisher.ended
    assert (job, state) == (overdue, JobState.EXPIRED)
    assert error is not None
    assert error.code is ErrorCode.DEADLINE_EXCEEDED


def test_a_job_that_has_ended_does_not_expire() -> None:
    jobs = RunningJobs()
    add_job(jobs, left_ms=0).conclude(JobState.DONE)
    watcher, publisher = watched(jobs)
    watcher.end_overdue()
    assert publisher.ended == []


async def test_jobs_are_checked_repeatedly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "CHECK_S", 0.001)
    jobs = RunningJobs()
    watcher, publisher = watched(jobs)
    watching = asyncio.create_task(watcher.run())
    await asyncio.sleep(0.003)
    late = add_job(jobs, left_ms=5)
    await until(lambda: publisher.ended)
    assert publisher.ended[0][0] is late
    await cancel_tasks(watching)


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
