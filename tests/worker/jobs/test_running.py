from queue_support import make_job
from running_jobs import add_job, ascii_ids, claim, make_choice, output, outputs

from shared.errors import ErrorCode, JobError
from shared.protocol.jobs import JobState, SamplingParams
from shared.protocol.results import FinishReason
from worker.jobs.running import RunningJob, RunningJobs

ERROR = JobError(code=ErrorCode.INTERNAL, message="it failed")


def finish(job: RunningJob, number: int, text: str = "a") -> None:
    """Complete one choice of a job."""
    choice = job.choices[number]
    for each in outputs(choice, text[:-1]):
        choice.accept(each)
    choice.accept(output(choice, text[-1], FinishReason.LENGTH))


def test_the_first_end_of_a_job_stays() -> None:
    job = add_job(RunningJobs(), try_=3)
    job.conclude(JobState.FAILED, ERROR)
    job.conclude(JobState.DONE)
    assert (job.end.job, job.end.try_) == (job.id, 3)
    assert (job.end.state, job.end.error) == (JobState.FAILED, ERROR)


def test_usage_counts_all_output_tokens_and_the_cached_tokens_of_each_prompt_once() -> None:
    jobs = RunningJobs()
    two_prompts = make_job(sampling=SamplingParams(seed=1, n=2), prompts=("hello", "world"))
    job = RunningJob(claim(two_prompts))
    jobs.add(job)
    jobs.add_choices(job, [make_choice(i, prompt="hello") for i in range(4)])
    job.num_prompt_tokens = 10
    for number, choice in enumerate(job.choices):
        choice.accept(output(choice, "a", num_cached_tokens=number + 1))
    job.conclude(JobState.DONE)
    assert job.end.usage.prompt_tokens == 10
    assert job.end.usage.completion_tokens == 4
    assert job.end.usage.cached_tokens == 1 + 3


def test_the_result_has_the_finished_choices_only() -> None:
    job = add_job(RunningJobs(), n=3)
    finish(job, 0, "abc")
    finish(job, 2, "xy")
    job.choices[1].accept(output(job.choices[1], "m"))
    job.conclude(JobState.CANCELLED, ERROR)
    result = job.result()
    assert (result.job, result.state, result.error) == (job.id, JobState.CANCELLED, ERROR)
    assert [choice.text for choice in result.choices] == ["abc", "xy"]
    assert result.choices[0].ids == tuple(ascii_ids("abc"))
    assert result.usage.completion_tokens == 6


def test_removing_an_earlier_claim_keeps_the_later_claim_of_the_same_job() -> None:
    jobs = RunningJobs()
    earlier = add_job(jobs)
    later = RunningJob(claim(earlier.job, try_=2))
    jobs.add(later)
    jobs.remove(earlier)
    assert jobs.get(later.id) is later


def test_jobs_may_be_removed_while_they_are_iterated() -> None:
    jobs = RunningJobs()
    added = [add_job(jobs) for _ in range(3)]
    for job in jobs:
        jobs.remove(job)
    assert len(added) == 3
    assert len(jobs) == 0


def test_subscribers_are_notified_when_jobs_finish_and_not_when_they_are_removed() -> None:
    jobs, counts = RunningJobs(), []
    one, two, _ = add_job(jobs), add_job(jobs), add_job(jobs)
    jobs.subscribe(lambda: counts.append(len(jobs)))
    jobs.remove(one)
    assert counts == []
    jobs.finish(two)
    assert counts == [1]
    jobs.clear()
    assert counts == [1, 0]
