"""Which jobs a worker returns to the queue so that others can run."""

from hypothesis import given
from hypothesis import strategies as st
from queue_support import make_job

from shared.protocol.jobs import ClaimedJob
from worker.jobs.running import RunningJob, jobs_to_preempt


def running(*, is_preemptible: bool, n: int = 1, cost: int = 10) -> RunningJob:
    job = make_job(n=n, cost=cost, is_preemptible=is_preemptible)
    return RunningJob(ClaimedJob(job=job, try_=1, suspect=False))


def test_the_youngest_preemptible_jobs_make_room() -> None:
    jobs = [running(is_preemptible=kind) for kind in (True, True, True, False, False)]
    preempted = jobs_to_preempt(jobs, max_sequences=3, max_tokens=1000)
    assert preempted == [jobs[2], jobs[1]]


def test_tokens_are_counted_as_well_as_sequences() -> None:
    jobs = [running(is_preemptible=True, cost=60), running(is_preemptible=False, cost=60)]
    assert jobs_to_preempt(jobs, max_sequences=8, max_tokens=100) == [jobs[0]]


def test_a_single_large_preemptible_job_stays() -> None:
    jobs = [running(is_preemptible=True, n=9)]
    assert jobs_to_preempt(jobs, max_sequences=4, max_tokens=1000) == []


JOBS = st.lists(
    st.builds(running, is_preemptible=st.booleans(), n=st.integers(1, 4), cost=st.integers(1, 50)),
    max_size=12,
)


@given(JOBS, st.integers(1, 12), st.integers(1, 200))
def test_no_more_jobs_than_necessary_are_preempted(
    jobs: list[RunningJob], max_sequences: int, max_tokens: int
) -> None:
    preempted = jobs_to_preempt(jobs, max_sequences=max_sequences, max_tokens=max_tokens)
    assert all(job.job.is_preemptible for job in preempted)
    kept = [job for job in jobs if job not in preempted]
    others = [job for job in jobs if not job.job.is_preemptible]

    def fits(some: list[RunningJob]) -> bool:
        return (
            sum(job.num_open for job in some) <= max_sequences
            and sum(job.job.cost for job in some) <= max_tokens
        )

    if others and not fits(kept):
        assert kept == others, "only jobs that aren't preemptible are left"
    if preempted:
        assert not fits([*kept, preempted[-1]])
