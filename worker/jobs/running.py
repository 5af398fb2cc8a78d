"""The jobs that this worker has claimed and not yet finished or released."""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from shared.errors import JobError
from shared.protocol.events import End
from shared.protocol.ids import AdapterVersion, JobId
from shared.protocol.jobs import ClaimedJob, JobState
from shared.protocol.results import Choice, Result, Usage
from shared.protocol.workers import FIRST_TOKEN_BOUNDS_S
from worker.engine.request import RequestId
from worker.jobs.running_choice import RunningChoice


class RunningJob:
    """A job that this worker has claimed and not yet finished or released."""

    def __init__(self, claimed: ClaimedJob) -> None:
        self.job = claimed.job
        self.claimed = claimed
        self.num_prompt_tokens = 0
        self.choices: list[RunningChoice] = []
        """The job's choices. Empty until the engine gets the job's requests."""
        self.has_tokens = False
        """Whether any claim of the job has computed a token."""
        self.is_admitted = False
        """Whether the job's requests were passed to the engine."""
        self.is_admission_published = False
        """Whether the job's `Admitted` event was published or is in the batch being published."""
        self.is_first_token_published = False
        """Whether tokens of this claim were published or are in the batch being published."""
        self.end: End | None = None
        """Final event of the job, set before it is written to Redis; None while the job runs."""
        self.deadline = time.monotonic() + claimed.left_ms / 1000
        """Deadline in seconds on the monotonic clock."""

    @property
    def id(self) -> JobId:
        """Id of the job."""
        return self.job.id

    @property
    def num_open(self) -> int:
        """Number of sequences that the job counts for in the worker's limit."""
        if not self.choices:
            return self.job.num_sequences
        num_unfinished = sum(choice.finish is None for choice in self.choices)
        return min(num_unfinished, self.job.num_sequences)

    @property
    def num_used(self) -> int:
        """Number of tokens of the prompts and answers so far."""
        return self.num_prompt_tokens + sum(len(choice.ids) for choice in self.choices)

    @property
    def age_s(self) -> float:
        """Seconds since the job was accepted."""
        return self.job.deadline_ms / 1000 - (self.deadline - time.monotonic())

    def conclude(self, state: JobState, error: JobError | None = None) -> None:
        """Set the job's final event. Later calls have no effect."""
        if self.end is None:
            try_, usage = self.claimed.try_, self._usage()
            self.end = End(job=self.id, try_=try_, state=state, usage=usage, error=error)

    def result(self) -> Result:
        """Return the result of a concluded job. Unfinished choices are left out."""
        assert self.end is not None
        return Result(
            job=self.id,
            state=self.end.state,
            choices=tuple(
                Choice(
                    text=c.text,
                    finish=c.finish,
                    ids=tuple(c.ids),
                    stop=c.stop,
                    logprobs=tuple(c.logprobs),
                    prompt_logprobs=c.prompt_logprobs,
                    prompt_ids=c.reported_prompt_ids,
                    prompt_scores=c.prompt_scores,
                )
                for c in self.choices
                if c.finish is not None
            ),
            usage=self.end.usage,
            error=self.end.error,
        )

    def _usage(self) -> Usage | None:
        if not self.choices:
            return None
        num_tokens = sum(len(choice.ids) for choice in self.choices)
        # Counted once per prompt, because its other choices reuse the tokens of the first.
        firsts = self.choices[:: self.job.sampling.n]
        return Usage(
            prompt_tokens=self.num_prompt_tokens,
            completion_tokens=num_tokens,
            cached_tokens=sum(choice.num_cached_tokens for choice in firsts),
            reasoning_tokens=sum(choice.num_reasoning_tokens for choice in self.choices),
        )


class FirstTokens:
    """Histogram of the times from the acceptance of jobs to their first tokens."""

    def __init__(self) -> None:
        self._counts = [0] * (len(FIRST_TOKEN_BOUNDS_S) + 1)

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of jobs in each bucket since the worker started."""
        return tuple(self._counts)

    def observe(self, seconds: float) -> None:
        """Count a job that took `seconds` to its first token."""
        self._counts[bisect_left(FIRST_TOKEN_BOUNDS_S, seconds)] += 1


class RunningJobs:
    """The jobs that this worker owns, indexed by job id and by engine request."""

    def __init__(self) -> None:
        self._jobs: dict[JobId, RunningJob] = {}
        self._choices: dict[RequestId, tuple[RunningJob, RunningChoice]] = {}
        self._listeners: list[Callable[[], None]] = []
        self.first_tokens = FirstTokens()

    def subscribe(self, on_finished: Callable[[], None]) -> None:
        """Call `on_finished` whenever jobs have left the engine. Other jobs can start then."""
        self._listeners.append(on_finished)

    def __iter__(self) -> Iterator[RunningJob]:
        return iter(list(self._jobs.values()))

    def __len__(self) -> int:
        return len(self._jobs)

    def get(self, job_id: JobId) -> RunningJob | None:
        """Return the job with this id; None if this worker doesn't own it."""
        return self._jobs.get(job_id)

    def find(self, request_id: RequestId) -> tuple[RunningJob, RunningChoice] | None:
        """Return the job and choice of a request, or None once the job or the choice has ended."""
        found = self._choices.get(request_id)
        return found if found and not found[0].end and not found[1].finish else None

    def add(self, job: RunningJob) -> None:
        """Add a claimed job. It has no choices yet."""
        self._jobs[job.id] = job

    def add_choices(self, job: RunningJob, choices: list[RunningChoice]) -> None:
        """Set the choices of a job and index them by request."""
        job.choices = choices
        job.has_tokens = any(choice.ids for choice in choices)
        self._choices |= {choice.request_id: (job, choice) for choice in choices}

    def finish(self, job: RunningJob) -> None:
        """Remove a job that has left the engine, and notify the subscribers."""
        self.remove(job)
        self._notify()

    def remove(self, job: RunningJob) -> None:
        """Remove a job. Do nothing if the job isn't in the collection."""
        if self._jobs.get(job.id) is job:
            del self._jobs[job.id]
        for choice in job.choices:
            self._choices.pop(choice.request_id, None)

    def clear(self) -> None:
        """Remove all jobs, and notify the subscribers."""
        self._jobs.clear()
        self._choices.clear()
        self._notify()

    def _notify(self) -> None:
        for listener in self._listeners:
            listener()

    @property
    def claim_epochs(self) -> dict[JobId, int]:
        """Claim epoch of each job, by job id."""
        return {job.id: job.claimed.claim_epoch for job in self._jobs.values()}

    @property
    def num_by_version(self) -> Mapping[AdapterVersion, int]:
        """For each adapter version, the number of its jobs in the engine."""
        return Counter(job.job.version for job in self._jobs.values() if job.choices)

    @property
    def num_owned_by_version(self) -> Mapping[AdapterVersion, int]:
        """For each version, the number of its jobs, in the engine or not."""
        return Counter(job.job.version for job in self._jobs.values())

    @property
    def num_open(self) -> int:
        """Number of engine sequences that the jobs occupy, or will occupy once admitted."""
        return sum(job.num_open for job in self._jobs.values() if job.end is None)

    @property
    def num_tokens(self) -> int:
        """Estimated number of KV cache tokens that the jobs need."""
        return sum(job.job.cost for job in self._jobs.values() if job.end is None)

    @property
    def num_preemptible_open(self) -> int:
        """Part of `num_open` that preemptible jobs occupy."""
        return sum(job.num_open for job in self._preemptible)

    @property
    def num_preemptible_tokens(self) -> int:
        """Part of `num_tokens` that preemptible jobs need."""
        return sum(job.job.cost for job in self._preemptible)

    @property
    def _preemptible(self) -> Iterator[RunningJob]:
        return (job for job in self if job.end is None and job.job.is_preemptible)
