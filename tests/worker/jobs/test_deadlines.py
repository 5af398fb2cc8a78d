from typing import Any

from running_jobs import add_job
from scripted_engine import ScriptedEngine
from worker_support import Client, until

from shared.protocol.jobs import JobState
from worker.jobs.deadlines import Deadlines
from worker.jobs.running import RunningJobs


def test_a_job_that_has_ended_does_not_expire() -> None:
    jobs = RunningJobs()
    add_job(jobs, left_ms=0).conclude(JobState.DONE)
    publisher: Any = None  # it isn't called
    Deadlines(jobs, publisher).end_overdue()


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
