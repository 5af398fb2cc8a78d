"""From the engine's outputs to what clients see: events, checkpoints, and the end of each job.

While one batch is on its way the next steps' outputs gather, so a slow Redis gets fewer and
larger batches. A batch is repeated as it is until Redis has taken it: readers know a repeated
event by its index.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import structlog

from shared.errors import JobError, LeaseLost, RedisUnavailable
from shared.protocol.events import Admitted, Event, Tokens
from shared.protocol.ids import ApiId, JobId, WorkerId
from shared.protocol.jobs import JobState
from shared.store.queue import Queue
from shared.store.queue_replies import FinishOutcome, Standing
from worker.engine.request import RequestId, StepOutput
from worker.jobs.running import RunningChoice, RunningJob, RunningJobs
from worker.lease import Lease
from worker.redis_retry import until_redis_is_back

log = structlog.get_logger()

CHECKPOINT_TOKENS = 16
CHECKPOINT_S = 0.25
CHECKPOINT_PUBLICATIONS = 48
"""Redis remembers where the last 128 publications of a worker lie: tokens without a checkpoint must
stand in these."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What goes to Redis in one call, and the jobs that end after it."""

    wid: WorkerId
    epochs: Mapping[JobId, int]
    """Of the claims that it was computed under."""
    events: dict[ApiId, list[Event]]
    checkpoints: list[Tokens]
    ended: list[RunningJob]

    def without(self, jobs: frozenset[JobId]) -> "Batch":
        """The rest of it."""
        events = {
            api: kept
            for api, batch in self.events.items()
            if (kept := [event for event in batch if event.job not in jobs])
        }
        checkpoints = [tokens for tokens in self.checkpoints if tokens.job not in jobs]
        return replace(self, events=events, checkpoints=checkpoints)


class Publisher:
    """Applies engine outputs to the running jobs, and tells Redis."""

    def __init__(
        self,
        queue: Queue,
        lease: Lease,
        jobs: RunningJobs,
        *,
        abort: Callable[[RequestId], None],
        on_job_gone: Callable[[], None],
        on_cancelled: Callable[[JobId], None],
    ) -> None:
        """Wire it up.

        Args:
            queue: where everything goes.
            lease: under which id.
            jobs: what the outputs belong to; ended jobs are removed.
            abort: ends a request in the engine.
            on_job_gone: called when there is room for others.
            on_cancelled: told of jobs that their clients have cancelled.
        """
        self._queue = queue
        self._lease = lease
        self._jobs = jobs
        self._abort = abort
        self._on_job_gone = on_job_gone
        self._on_cancelled = on_cancelled
        self._num_publications = 0
        self._may_have_lost = False
        """Set while Redis is away: a failover may drop our last writes."""
        self._has_news = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()

    def accept(self, outputs: Iterable[StepOutput]) -> None:
        """Take one step's outputs; those of jobs that have ended are dropped."""
        for output in outputs:
            if found := self._jobs.find(output.request_id):
                self._apply(output, *found)
        self._has_news.set()

    def announce(self, job: RunningJob) -> None:
        """Tell the job's client that the engine has it, or that nothing was left to compute."""
        job.is_admitted = True
        for choice in job.choices:
            choice.saved_at = asyncio.get_running_loop().time()
        self._end_if_complete(job)
        self._has_news.set()

    def end(self, job: RunningJob, state: JobState, error: JobError | None = None) -> None:
        """End a job before it is complete."""
        job.conclude(state, error)
        for choice in job.choices:
            if choice.finish is None:
                self._abort(choice.request_id)
        self._has_news.set()

    def note_redis_away(self) -> None:
        """Write whole checkpoints next time: Redis may come back without the last ones."""
        self._may_have_lost = True

    def heed(self, standing: Standing, epochs: Mapping[JobId, int]) -> None:
        """Drop the jobs that aren't this worker's any more, and end those that are cancelled.

        `epochs` are those of the claims that Redis was asked about.
        """
        for job_id in standing.fenced:
            job = self._jobs.get(job_id)
            if job is None or job.claimed.epoch != epochs.get(job_id):
                continue  # it is gone, or was claimed anew meanwhile
            if job.end is None:  # else it hears of it when it is finished
                log.warning("job_fenced", job_id=job_id, try_=job.claimed.try_)
                self.drop(job)
        for job_id in standing.cancelled:
            if self._jobs.get(job_id):
                self._on_cancelled(job_id)

    async def run(self) -> None:
        """Publish for as long as the worker serves."""
        while True:
            await self._wait_for_news()
            await self.flush()

    async def flush(self, *, save_all: bool = False) -> None:
        """Publish what there is; with `save_all` checkpoints cover all of it afterwards."""
        async with self._one_at_a_time:
            self._has_news.clear()
            batch = self._collect(save_all=save_all)
            try:
                while batch.events or batch.checkpoints:
                    standing = await until_redis_is_back(partial(self._publish, batch))
                    self.heed(standing, batch.epochs)
                    if not standing.fenced:
                        break
                    batch = batch.without(standing.fenced)
            except LeaseLost:
                self._lease.lose(batch.wid)
                return
            async with asyncio.TaskGroup() as group:
                for job in batch.ended:
                    group.create_task(self._finish(batch.wid, job))

    async def _wait_for_news(self) -> None:
        """Return when there is news, or when a token has been without a checkpoint for long."""
        has_unsaved = any(c.unsaved for job in self._jobs for c in job.choices)
        try:
            async with asyncio.timeout(CHECKPOINT_S if has_unsaved else None):
                await self._has_news.wait()
        except TimeoutError:
            return

    def drop(self, job: RunningJob) -> None:
        """Forget a job that belongs to another claim."""
        for choice in job.choices:
            self._abort(choice.request_id)
        self._jobs.remove(job)
        self._on_job_gone()

    def _apply(self, output: StepOutput, job: RunningJob, choice: RunningChoice) -> None:
        if output.token_id is None:
            self.end(job, JobState.FAILED, output.error)
            return
        choice.accept(output)
        if choice.finish and not output.finish:
            self._abort(choice.request_id)
        self._end_if_complete(job)

    def _end_if_complete(self, job: RunningJob) -> None:
        if all(choice.finish for choice in job.choices):
            job.conclude(JobState.DONE)

    def _collect(self, *, save_all: bool) -> Batch:
        batch = Batch(self._lease.wid, self._jobs.epochs, defaultdict(list), [], [])
        self._num_publications += 1
        saves_anew, self._may_have_lost = self._may_have_lost, False
        for job in self._jobs:
            events = batch.events[job.job.reply_to] if _has_news(job) else []
            if job.is_admitted and not job.is_announced:
                job.is_announced = True
                events.append(_admitted(job))
            for choice in job.choices:
                if choice.unpublished:
                    events.append(choice.unpublished.take(job.claimed, choice.choice))
            if saves_anew:
                batch.checkpoints.extend(c.everything(job.claimed) for c in job.choices if c.ids)
            batch.checkpoints.extend(self._due_checkpoints(job, save_all=save_all))
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
            return await self._queue.publish(
                batch.wid, batch.events, batch.checkpoints, epochs=batch.epochs
            )
        except RedisUnavailable:
            self.note_redis_away()
            raise

    async def _finish(self, wid: WorkerId, job: RunningJob) -> None:
        end = job.end
        assert end is not None
        epoch, result = job.claimed.epoch, job.result()
        outcome = await until_redis_is_back(
            lambda: self._queue.finish(wid, end, result, epoch=epoch)
        )
        self._jobs.remove(job)
        self._on_job_gone()
        if outcome is FinishOutcome.FENCED:
            log.info("job_fenced", job_id=job.id, try_=end.try_)
        else:
            log.info("job_ended", job_id=job.id, state=end.state, **_usage_fields(job))


def _has_news(job: RunningJob) -> bool:
    return (job.is_admitted and not job.is_announced) or any(c.unpublished for c in job.choices)


def _admitted(job: RunningJob) -> Admitted:
    return Admitted(job=job.id, try_=job.claimed.try_, prompt_tokens=job.num_prompt_tokens)


def _usage_fields(job: RunningJob) -> dict[str, int]:
    usage = job.end.usage if job.end else None
    if usage is None:
        return {}
    return {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
