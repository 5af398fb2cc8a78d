"""Publishes the engine's outputs to Redis: events, checkpoints, and the end of each job.

While one batch is being written, the outputs of the next steps accumulate, so a slow Redis gets
fewer and larger batches. A batch is retried unchanged until Redis accepts it. Readers recognize
repeated events by their index. After an error, and after Redis has lost publications that it had
acknowledged, full checkpoints are written, from which readers can fill any gap.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial

import structlog

from shared.errors import ErrorCode, JobError, LeaseLost, RedisUnavailable
from shared.protocol.events import Admitted, Event, Tokens
from shared.protocol.ids import ApiId, JobId, WorkerId
from shared.protocol.jobs import JobState
from shared.protocol.queue_replies import FinishOutcome, Standing
from shared.protocol.timeline import JobEvent
from shared.store.jobs.ended_jobs import EndedJob
from shared.store.jobs.queue import Queue
from shared.store.redis.retry import retry_until_available
from shared.store.redis.scripts import MAX_SENT
from worker.engine.request import RequestId, StepOutput
from worker.jobs.durable_ends import DurableEnds
from worker.jobs.running import RunningJob, RunningJobs
from worker.jobs.running_choice import RunningChoice
from worker.lease import Lease

log = structlog.get_logger()

CANCELLED = JobError(code=ErrorCode.CANCELLED, message="the job was cancelled")
PUBLISH_S = 0.03
"""Minimum seconds between two publications, except for the first and last tokens of answers.

If Redis, the front end and the client run on the same machine, a publication takes about 2 ms of
CPU time from the engine. A step of a single stream takes about 10 ms.
"""
CHECKPOINT_TOKENS = 16
"""A choice's next checkpoint is due once this many tokens of the choice are in no checkpoint."""
CHECKPOINT_S = 0.25
"""A choice's next checkpoint is due at most this many seconds after its previous one."""
CHECKPOINT_PUBLICATIONS = MAX_SENT * 3 // 4
"""A choice's next checkpoint is due at most this many publications after its previous one.

Tokens without a checkpoint can be recovered only from the worker's last `MAX_SENT` publications.
"""


@dataclass(frozen=True, slots=True)
class Batch:
    """Events and checkpoints for one publication, and the jobs to finish after it."""

    wid: WorkerId
    claim_epochs: Mapping[JobId, int]
    """Claim epoch of each running job. Redis uses it to detect jobs that were claimed again."""
    events: dict[ApiId, list[Event]]
    """For each front end, the events to publish to it."""
    checkpoints: list[Tokens]
    ended: list[RunningJob]
    moments: list[tuple[JobId, JobEvent]]
    """Events to add to the timelines of jobs."""
    used: dict[JobId, int]
    """Tokens used so far by each job in `checkpoints`, if the job's API key limits them."""

    def without(self, jobs: frozenset[JobId]) -> "Batch":
        """Return the batch without the events and checkpoints of `jobs`."""
        events = {
            api: kept
            for api, batch in self.events.items()
            if (kept := [event for event in batch if event.job not in jobs])
        }
        checkpoints = [tokens for tokens in self.checkpoints if tokens.job not in jobs]
        moments = [moment for moment in self.moments if moment[0] not in jobs]
        return replace(self, events=events, checkpoints=checkpoints, moments=moments)


@dataclass(slots=True, eq=False)
class Publisher:
    """Applies engine outputs to the running jobs, and publishes these outputs."""

    queue: Queue
    lease: Lease
    jobs: RunningJobs
    _: KW_ONLY
    abort: Callable[[RequestId], None]
    """Aborts a request in the engine."""
    ends: DurableEnds
    _num_publications: int = field(default=0, init=False)
    _num_acknowledged: Counter[WorkerId] = field(default_factory=Counter, init=False)
    """Number of publications that Redis has acknowledged, by the worker id in the publication."""
    _may_have_lost: bool = field(default=False, init=False)
    """Whether the latest checkpoints were possibly lost in a failover of Redis."""
    _has_updates: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _is_urgent: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    """Whether the next publication is due at once."""
    _published_at: float = field(default=0.0, init=False)
    """Time of the last publication, in seconds on the event loop's clock."""
    _flush_lock: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    def accept(self, outputs: Iterable[StepOutput]) -> None:
        """Apply the outputs of one step. Outputs of ended jobs are ignored."""
        for output in outputs:
            if found := self.jobs.find(output.request_id):
                self._apply(output, *found)
        self._has_updates.set()

    def report_admitted(self, job: RunningJob) -> None:
        """Publish that the engine has accepted a job, and end it if its choices are finished."""
        job.is_admitted = True
        for choice in job.choices:
            choice.saved_at = asyncio.get_running_loop().time()
        self._end_if_complete(job)
        self._publish_at_once()

    def end(self, job: RunningJob, state: JobState, error: JobError | None = None) -> None:
        """End a job, even if its answers are incomplete, and abort its requests in the engine."""
        job.conclude(state, error)
        for choice in job.choices:
            if choice.finish is None:
                self.abort(choice.request_id)
        self._publish_at_once()

    def cancel(self, job: RunningJob) -> None:
        """End a job because its client cancelled it."""
        self.end(job, JobState.CANCELLED, CANCELLED)

    def drop(self, job: RunningJob) -> None:
        """Abort and remove a job that now belongs to another claim."""
        for choice in job.choices:
            self.abort(choice.request_id)
        self.jobs.finish(job)

    def on_redis_away(self) -> None:
        """Make the next flush write full checkpoints, because Redis may have lost earlier ones."""
        self._may_have_lost = True

    def apply_standing(self, standing: Standing, claim_epochs: Mapping[JobId, int]) -> None:
        """Drop the jobs that this worker no longer owns, and end cancelled jobs.

        `claim_epochs` are the claim epochs that the jobs had when `standing` was requested.
        """
        for job_id in standing.fenced:
            job = self.jobs.get(job_id)
            if job is None or job.claimed.claim_epoch != claim_epochs.get(job_id):
                continue  # the job has ended, or this worker has claimed it again
            if job.end is None:  # `_finish` detects that an ended job is fenced
                log.warning("job_fenced", job_id=job_id, try_=job.claimed.try_)
                self.drop(job)
        for job_id in standing.cancelled:
            if job := self.jobs.get(job_id):
                self.cancel(job)

    async def run(self) -> None:
        """Publish updates until cancelled."""
        while True:
            await self._wait_for_updates()
            await self._wait_for_turn()
            await self.flush()

    async def flush(self, *, save_all: bool = False) -> None:
        """Publish all updates, and finish the jobs that have ended.

        With `save_all`, write checkpoints of all choices with unsaved tokens, even if none is due.
        """
        async with self._flush_lock:
            self._has_updates.clear()
            self._is_urgent.clear()
            self._published_at = asyncio.get_running_loop().time()
            batch = self._collect(save_all=save_all)
            try:
                while batch.events or batch.checkpoints:
                    standing = await retry_until_available(partial(self._publish, batch))
                    self.apply_standing(standing, batch.claim_epochs)
                    if not standing.fenced:
                        break
                    batch = batch.without(standing.fenced)
            except LeaseLost:
                self.lease.lose(batch.wid)
                return
            async with asyncio.TaskGroup() as group:
                for job in batch.ended:
                    group.create_task(self._finish(batch.wid, job))

    async def _wait_for_updates(self) -> None:
        """Wait for updates, or until a checkpoint is due."""
        has_unsaved = any(c.unsaved for job in self.jobs for c in job.choices)
        try:
            async with asyncio.timeout(CHECKPOINT_S if has_unsaved else None):
                await self._has_updates.wait()
        except TimeoutError:
            return

    async def _wait_for_turn(self) -> None:
        """Wait until `PUBLISH_S` after the last publication, or until the next is due at once."""
        turn = self._published_at + PUBLISH_S
        if turn > asyncio.get_running_loop().time():
            with suppress(TimeoutError):
                async with asyncio.timeout_at(turn):
                    await self._is_urgent.wait()

    def _publish_at_once(self) -> None:
        self._has_updates.set()
        self._is_urgent.set()

    def _apply(self, output: StepOutput, job: RunningJob, choice: RunningChoice) -> None:
        if output.error is not None:
            self.end(job, JobState.FAILED, output.error)
            return
        is_first = not choice.ids
        choice.accept(output)
        if is_first or choice.finish:
            self._publish_at_once()
        if not job.has_tokens and choice.ids:
            job.has_tokens = True
            self.jobs.first_tokens.observe(job.age_s)
        if choice.finish and not output.finish:
            self.abort(choice.request_id)
        self._end_if_complete(job)

    def _end_if_complete(self, job: RunningJob) -> None:
        if all(choice.finish for choice in job.choices):
            job.conclude(JobState.DONE)

    def _collect(self, *, save_all: bool) -> Batch:
        batch = Batch(self.lease.wid, self.jobs.claim_epochs, defaultdict(list), [], [], [], {})
        self._num_publications += 1
        saves_everything, self._may_have_lost = self._may_have_lost, False
        for job in self.jobs:
            events = batch.events[job.job.reply_to] if _has_updates(job) else []
            if job.is_admitted and not job.is_admission_published:
                job.is_admission_published = True
                batch.moments.append((job.id, JobEvent.LOADED))
                try_, num_tokens = job.claimed.try_, job.num_prompt_tokens
                events.append(Admitted(job=job.id, try_=try_, prompt_tokens=num_tokens))
            for choice in job.choices:
                if choice.unpublished:
                    if not job.is_first_token_published and choice.unpublished.ids:
                        job.is_first_token_published = True
                        batch.moments.append((job.id, JobEvent.FIRST_TOKEN))
                    events.append(choice.unpublished.take(job.claimed, choice.choice))
            if saves_everything:
                full = (c.full_checkpoint(job.claimed) for c in job.choices if c.ids)
                batch.checkpoints.extend(full)
            batch.checkpoints.extend(self._due_checkpoints(job, save_all=save_all))
            if job.claimed.token_limit is not None:
                batch.used[job.id] = job.num_used
            if job.end:
                batch.ended.append(job)
        return batch

    def _due_checkpoints(self, job: RunningJob, *, save_all: bool) -> Iterable[Tokens]:
        now = asyncio.get_running_loop().time()
        for choice in job.choices:
            unsaved = choice.unsaved
            is_due = len(unsaved.ids) >= CHECKPOINT_TOKENS or now - choice.saved_at >= CHECKPOINT_S
            is_due |= self._num_publications - choice.saved_in >= CHECKPOINT_PUBLICATIONS
            if unsaved and (is_due or unsaved.finish or save_all):
                choice.saved_at, choice.saved_in = now, self._num_publications
                yield unsaved.take(job.claimed, choice.choice)

    async def _publish(self, batch: Batch) -> Standing:
        try:
            standing = await self.queue.publish(
                batch.wid,
                batch.events,
                batch.checkpoints,
                claim_epochs=batch.claim_epochs,
                used=batch.used,
                moments=batch.moments,
                num_acknowledged=self._num_acknowledged[batch.wid],
            )
        except RedisUnavailable:
            self.on_redis_away()
            raise
        if not standing.fenced:
            self._num_acknowledged[batch.wid] += 1
        if standing.num_lost:
            # A replaced master acknowledges publications until it is demoted.
            log.warning("publications_lost", num=standing.num_lost)
            self.on_redis_away()
            self._has_updates.set()
        return standing

    async def _finish(self, wid: WorkerId, job: RunningJob) -> None:
        end = job.end
        assert end is not None
        claim_epoch, result = job.claimed.claim_epoch, job.result()
        outcome = await retry_until_available(
            lambda: self.queue.finish(wid, end, result, claim_epoch=claim_epoch)
        )
        self.jobs.finish(job)
        if outcome is FinishOutcome.FENCED:
            log.info("job_fenced", job_id=job.id, try_=end.try_)
        else:
            self.ends.add(EndedJob(wid, end, result, claim_epoch))
            log.info("job_ended", job_id=job.id, state=end.state, try_=end.try_, **_end_fields(job))


def _has_updates(job: RunningJob) -> bool:
    is_admission_new = job.is_admitted and not job.is_admission_published
    return is_admission_new or any(choice.unpublished for choice in job.choices)


def _end_fields(job: RunningJob) -> dict[str, str | int]:
    """Return the fields that describe an ended job in the log."""
    assert job.end is not None
    usage, error = job.end.usage, job.end.error
    fields: dict[str, str | int] = {"model": job.job.model, "version": job.job.version}
    if error is not None:
        fields["code"] = error.code
    if usage is not None:
        fields["prompt_tokens"] = usage.prompt_tokens
        fields["completion_tokens"] = usage.completion_tokens
    return fields
