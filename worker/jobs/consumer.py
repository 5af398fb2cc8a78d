"""From claimed jobs to requests in the engine."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import structlog

from shared.errors import (
    AdapterRejected,
    ErrorCode,
    JobError,
    JobFailed,
    LeaseLost,
    RedisUnavailable,
)
from shared.protocol.events import End, Tokens
from shared.protocol.ids import JobId, WorkerId
from shared.protocol.jobs import ClaimedJob, JobState
from shared.protocol.results import Result
from shared.store.queue import Queue
from shared.store.queue_replies import Undecodable
from worker.adapters.residency import Adapters, NoRoom
from worker.engine.thread import EngineThread
from worker.jobs.publisher import Publisher
from worker.jobs.requests import choices_of, request_of
from worker.jobs.running import RunningJob, RunningJobs
from worker.lease import Lease
from worker.redis_retry import until_redis_is_back
from worker.served_model import ServedModel
from worker.text.prompt_style import Style

log = structlog.get_logger()

MAX_PAUSE_S = 1.0
"""Claims come at least this often, in case a wake-up call was lost."""
EARLY_CANCELS = 256
"""Cancellations remembered that overtook the reply of the claim."""

CANCELLED = JobError(code=ErrorCode.CANCELLED, message="the job was cancelled")
FAULT = JobError(code=ErrorCode.INTERNAL, message="a fault of the worker; its log has the job id")

Recover = Callable[[ClaimedJob], Awaitable[Sequence[Tokens]]]


class Consumer:
    """Claims jobs while there is room, prepares them and hands them to the engine."""

    def __init__(
        self,
        queue: Queue,
        lease: Lease,
        jobs: RunningJobs,
        engine: EngineThread,
        adapters: Adapters,
        publisher: Publisher,
        *,
        served: ServedModel,
        max_num_seqs: int,
        recover: Recover,
        on_room: Callable[[bool], None],
    ) -> None:
        """Wire it up.

        Args:
            queue: where jobs come from.
            lease: the id under which they are claimed.
            jobs: gets those that are.
            engine: computes them.
            adapters: what they need.
            publisher: tells how they go on.
            served: the base model.
            max_num_seqs: most of them at a time, in choices.
            recover: gives what earlier tries of a job have shown.
            on_room: told at each claim whether there is room for more jobs.
        """
        self._queue = queue
        self._lease = lease
        self._jobs = jobs
        self._engine = engine
        self._adapters = adapters
        self._publisher = publisher
        self._served = served
        self._max_num_seqs = max_num_seqs
        self._recover = recover
        self._on_room = on_room
        adapters.on_loaded = self.wake
        self._is_open = True
        self._may_claim = asyncio.Event()
        self._early_cancels: deque[JobId] = deque(maxlen=EARLY_CANCELS)

    async def run(self) -> None:
        """Claim until cancelled."""
        async with asyncio.TaskGroup() as admissions:
            while True:
                await self._lease.is_held.wait()
                self._may_claim.clear()
                pause_s = await self._claim(admissions)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._may_claim.wait()

    def wake(self) -> None:
        """Look for jobs now: some came in, or there is room again."""
        self._may_claim.set()

    def job_gone(self) -> None:
        """A job has ended: look for others, adapters that had no room included."""
        self._adapters.job_gone()
        self.wake()

    def close(self) -> None:
        """Claim no more."""
        self._is_open = False
        self.wake()

    def cancel(self, job_id: JobId) -> None:
        """End a job that its client doesn't want any more."""
        if job := self._jobs.get(job_id):
            self._publisher.end(job, JobState.CANCELLED, CANCELLED)
        else:
            self._early_cancels.append(job_id)

    async def _claim(self, admissions: asyncio.TaskGroup) -> float:
        """Claim once and admit what came; seconds until the next try."""
        sequences = max(0, self._max_num_seqs - self._jobs.num_open) if self._is_open else 0
        tokens = max(0, self._served.kv_tokens - self._jobs.num_tokens)
        wid, adapters, room = self._lease.wid, self._adapters, self._adapters.room
        max_cold, held = adapters.max_cold, adapters.held
        room.claim_begins()
        try:
            claim = await self._queue.claim(
                wid,
                sequences=sequences,
                tokens=tokens,
                steal_ms=adapters.times.steal_ms,
                max_cold=max_cold,
                residents=[version for version in held if version not in room.yielding],
                refused=sorted(adapters.refused | room.crowded_out | room.yielding),
                load_ms=adapters.times.load_ms,
            )
        except LeaseLost:
            self._lease.lose(wid)
            return 0
        except RedisUnavailable as error:
            log.warning("claim_failed", error=str(error))
            self._publisher.note_redis_away()
            return MAX_PAUSE_S
        if wid != self._lease.wid:  # lost meanwhile, and with it what was claimed
            return 0
        for claimed in claim.jobs:
            self._take(claimed, admissions)
        if sequences and max_cold and all(c.job.version in held for c in claim.jobs):
            room.claimed_no_cold()
        self._on_room(not self._is_open or (sequences > 0 and tokens > 0))
        for unread in claim.undecodable:
            admissions.create_task(self._fail_undecodable(wid, unread))
        if (claim.jobs or claim.undecodable) and sequences:
            return 0
        return min(MAX_PAUSE_S, (claim.next_steal_ms or 1000) / 1000)

    def _take(self, claimed: ClaimedJob, admissions: asyncio.TaskGroup) -> None:
        job = RunningJob(claimed)
        log.debug("job_claimed", job_id=job.id, try_=claimed.try_, version=job.job.version)
        if earlier := self._jobs.get(job.id):  # of a claim that Redis has forgotten
            self._publisher.drop(earlier)
        self._jobs.add(job)
        if job.id in self._early_cancels:
            self.cancel(job.id)
        else:
            admissions.create_task(self._admit(job))

    async def _fail_undecodable(self, wid: WorkerId, unread: Undecodable) -> None:
        """End a job that stays unknown to the rest of the worker."""
        log.error("job_undecodable", job_id=unread.id, try_=unread.try_, error=unread.reason)
        message = f"the worker can't read this job: {unread.reason}"
        error = JobError(code=ErrorCode.INTERNAL, message=message)
        end = End(job=unread.id, try_=unread.try_, state=JobState.FAILED, error=error)
        result = Result(job=unread.id, state=JobState.FAILED, error=error)
        await until_redis_is_back(lambda: self._queue.finish(wid, end, result, epoch=unread.epoch))
        self.wake()

    async def _admit(self, job: RunningJob) -> None:
        """Take a job as far as the engine; whatever goes wrong is the job's end, not ours."""
        try:
            await self._start(job)
        except JobFailed as failed:
            self._publisher.end(job, JobState.FAILED, failed.error)
        except NoRoom:
            await self._wait_for_room(job)
        except AdapterRejected as error:
            await self._do_without_adapter(job, error)
        except Exception:  # per job: it becomes the job's error
            log.exception("admission_failed", job_id=job.id)
            self._publisher.end(job, JobState.FAILED, FAULT)

    async def _start(self, job: RunningJob) -> None:
        style = await self._style_of(job)
        prompts = await asyncio.to_thread(self._served.tokenizer.encode, job.job, style)
        shown: Sequence[Tokens] = ()
        if job.claimed.try_ > 1:
            shown = await until_redis_is_back(lambda: self._recover(job.claimed))
        grammar = await self._served.grammars.of(job.job)
        choices = choices_of(job, prompts, shown, self._served)
        requests = [
            request_of(job, choice, self._served, grammar, style)
            for choice in choices
            if choice.finish is None
        ]
        async with self._adapters.resident(job.job.version):
            if not self._is_wanted(job):
                return
            job.num_prompt_tokens = sum(len(prompt.ids) for prompt in prompts)
            self._jobs.add_choices(job, choices)
            for request in requests:
                self._engine.add(request)
            self._publisher.announce(job)

    async def _style_of(self, job: RunningJob) -> Style:
        """How the job's prompts are made; its adapter is loaded if that isn't known yet."""
        version = job.job.version
        if (style := self._served.style_of(version)) is None:
            async with self._adapters.resident(version):
                style = self._served.style_of(version)
        assert style is not None
        return style

    def _is_wanted(self, job: RunningJob) -> bool:
        """False when it was cancelled, or isn't ours any more, while it was prepared."""
        return self._jobs.get(job.id) is job and job.end is None

    async def _wait_for_room(self, job: RunningJob) -> None:
        """Give the job back until adapters in use have made room for its own."""
        version, room = job.job.version, self._adapters.room
        room.crowd_out(version)
        try:
            await self._adapters.let_others_load(version)
            await self._release(job)
        finally:
            room.returned()

    async def _do_without_adapter(self, job: RunningJob, error: AdapterRejected) -> None:
        """Leave the job to a worker that holds its adapter; without one it fails."""
        version = job.job.version
        log.warning("adapter_unavailable", job_id=job.id, version=version, error=str(error))
        if await self._adapters.let_others_load(version):
            self._adapters.refuse(version)
            await self._release(job)
            return
        code, message = ErrorCode.ADAPTER_UNAVAILABLE, f"adapter {version} can't be loaded: {error}"
        self._publisher.end(job, JobState.FAILED, JobError(code=code, message=message))

    async def _release(self, job: RunningJob) -> None:
        if not self._is_wanted(job):
            return
        wid = self._lease.wid
        self._jobs.remove(job)
        await until_redis_is_back(lambda: self._queue.release(wid, [job.id]))
        log.info("job_released", job_id=job.id, try_=job.claimed.try_)
