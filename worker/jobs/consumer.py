"""Claims jobs and turns them into requests in the engine."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field

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
from shared.protocol.queue_replies import Undecodable
from shared.protocol.results import Result
from shared.store.jobs.queue import Queue
from shared.store.redis.retry import retry_until_available
from worker.adapters.actors import Adapters
from worker.adapters.loader import NoAdapterMemory
from worker.adapters.residency import Change
from worker.engine.thread import EngineThread
from worker.jobs.encoding import encode
from worker.jobs.preemption import jobs_to_preempt
from worker.jobs.publisher import Publisher
from worker.jobs.requests import choices_of, request_of
from worker.jobs.running import RunningJob, RunningJobs
from worker.lease import Lease
from worker.served_model import ServedModel
from worker.text.prompt_style import PromptStyle

log = structlog.get_logger()

MAX_PAUSE_S = 1.0
"""Maximum seconds between two claims. This limits the delay after a lost wake-up."""
EARLY_CANCELS = 256
"""Maximum number of remembered cancellations of jobs that this worker hasn't claimed yet."""

FAULT = JobError(code=ErrorCode.INTERNAL, message="the worker failed; its log has the job id")

Recover = Callable[[ClaimedJob], Awaitable[Sequence[Tokens]]]


@dataclass(slots=True, eq=False)
class Consumer:
    """Claims jobs while the engine has room, prepares them and passes them to the engine."""

    queue: Queue
    lease: Lease
    jobs: RunningJobs
    engine: EngineThread
    adapters: Adapters
    publisher: Publisher
    _: KW_ONLY
    served: ServedModel
    max_num_seqs: int
    """Maximum number of choices that run at the same time."""
    recover: Recover
    """Returns the tokens that earlier tries of a job have published."""
    _is_open: bool = field(default=True, init=False)
    _may_claim: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _early_cancels: deque[JobId] = field(
        default_factory=lambda: deque(maxlen=EARLY_CANCELS), init=False
    )

    def __post_init__(self) -> None:
        """Claim again whenever a load ends or a job leaves the engine."""
        self.adapters.residency.subscribe(Change.LOADS, self.wake)
        self.jobs.subscribe(self.wake)

    async def run(self) -> None:
        """Claim and admit jobs until cancelled."""
        async with asyncio.TaskGroup() as admissions:
            while True:
                await self.lease.is_held.wait()
                self._may_claim.clear()
                pause_s = await self._claim(admissions)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._may_claim.wait()

    def wake(self) -> None:
        """Trigger a claim. Call this when jobs were added or the engine has room for more."""
        self._may_claim.set()

    def close(self) -> None:
        """Stop claiming jobs."""
        self._is_open = False
        self.wake()

    def cancel(self, job_id: JobId) -> None:
        """End a job that its client has cancelled, even if this worker hasn't claimed it yet."""
        if job := self.jobs.get(job_id):
            self.publisher.cancel(job)
        else:
            self._early_cancels.append(job_id)

    async def _claim(self, admissions: asyncio.TaskGroup) -> float:
        """Claim once and admit the jobs. Return the pause before the next claim, in seconds."""
        jobs, kv_tokens = self.jobs, self.served.info.kv_tokens
        max_num_seqs = self.max_num_seqs if self._is_open else 0
        sequences = max(0, max_num_seqs - jobs.num_open + jobs.num_preemptible_open)
        tokens = max(0, kv_tokens - jobs.num_tokens + jobs.num_preemptible_tokens)
        wid, residency = self.lease.wid, self.adapters.residency
        view = residency.claim_view(time.monotonic())
        try:
            claim = await self.queue.claim(
                wid,
                sequences=sequences,
                tokens=tokens,
                steal_ms=view.steal_ms,
                max_cold=view.max_cold,
                residents=view.residents,
                refused=view.refused,
                load_ms=view.load_ms,
                serves=self.served.serves,
                idle_sequences=max(0, max_num_seqs - jobs.num_open),
                idle_tokens=max(0, kv_tokens - jobs.num_tokens),
            )
        except LeaseLost:
            self.lease.lose(wid)
            return 0
        except RedisUnavailable as error:
            log.warning("claim_failed", error=str(error))
            self.publisher.on_redis_away()
            return MAX_PAUSE_S
        if wid != self.lease.wid:  # the lease was lost meanwhile, and the claimed jobs with it
            return 0
        for claimed in claim.jobs:
            self._take(claimed, admissions)
        await self._preempt()
        if sequences and view.max_cold and all(c.job.version in view.held for c in claim.jobs):
            residency.claim_found_no_cold(view)
        self.adapters.prefetcher.set_full(self._is_open and not (sequences and tokens))
        for unread in claim.undecodable:
            admissions.create_task(self._fail_undecodable(wid, unread))
        if (claim.jobs or claim.undecodable) and sequences and not claim.is_parked:
            return 0
        return min(MAX_PAUSE_S, (claim.next_steal_ms or 1000) / 1000)

    def _take(self, claimed: ClaimedJob, admissions: asyncio.TaskGroup) -> None:
        job = RunningJob(claimed)
        log.debug(
            "job_claimed",
            job_id=job.id,
            model=job.job.model,
            try_=claimed.try_,
            version=job.job.version,
            worker=self.lease.wid,
        )
        if earlier := self.jobs.get(job.id):  # from a claim that Redis has forgotten
            self.publisher.drop(earlier)
        self.jobs.add(job)
        if job.id in self._early_cancels:
            self.cancel(job.id)
        else:
            admissions.create_task(self._admit(job))

    async def _preempt(self) -> None:
        """Return preemptible jobs to the queue if the worker has more jobs than it can run."""
        preempted = jobs_to_preempt(
            [job for job in self.jobs if job.end is None],
            max_sequences=self.max_num_seqs,
            max_tokens=self.served.info.kv_tokens,
        )
        if not preempted:
            return
        await self.hand_over(preempted)
        log.debug("jobs_preempted", job_ids=[job.id for job in preempted])

    async def hand_over(self, jobs: Sequence[RunningJob]) -> None:
        """Return running jobs to the queue. Their next workers continue after their last tokens."""
        wid, ids = self.lease.wid, [job.id for job in jobs]
        for job in jobs:
            self.publisher.drop(job)
        await retry_until_available(lambda: self.queue.release(wid, ids))

    async def _fail_undecodable(self, wid: WorkerId, unread: Undecodable) -> None:
        """End a claimed job whose fields can't be decoded."""
        log.error("job_undecodable", job_id=unread.id, try_=unread.try_, error=unread.reason)
        message = f"the worker can't read this job: {unread.reason}"
        error = JobError(code=ErrorCode.INTERNAL, message=message)
        end = End(job=unread.id, try_=unread.try_, state=JobState.FAILED, error=error)
        result = Result(job=unread.id, state=JobState.FAILED, error=error)
        await retry_until_available(
            lambda: self.queue.finish(wid, end, result, claim_epoch=unread.claim_epoch)
        )
        self.wake()

    async def _admit(self, job: RunningJob) -> None:
        """Pass a job to the engine. An error ends only the job, not the worker."""
        try:
            await self._start(job)
        except JobFailed as failed:
            self.publisher.end(job, JobState.FAILED, failed.error)
        except NoAdapterMemory:
            await self._wait_for_memory(job)
        except AdapterRejected as error:
            await self._do_without_adapter(job, error)
        except Exception:  # per job: it becomes the job's error
            log.exception("admission_failed", job_id=job.id)
            self.publisher.end(job, JobState.FAILED, FAULT)

    async def _start(self, job: RunningJob) -> None:
        style = await self._style_of(job)
        prompts = await encode(self.served.tokenizer, job.job, style)
        published: Sequence[Tokens] = ()
        if job.claimed.try_ > 1:
            published = await retry_until_available(lambda: self.recover(job.claimed))
        grammar = await self.served.grammars.for_job(job.job, prompts[0])
        bad_words: tuple[tuple[int, ...], ...] = ()
        if words := job.job.sampling.bad_words:
            bad_words = await asyncio.to_thread(self.served.tokenizer.encode_words, words)
        choices = choices_of(job, prompts, published, self.served)
        requests = [
            request_of(job, choice, self.served, grammar, style, bad_words=bad_words)
            for choice in choices
            if choice.finish is None
        ]
        async with self.adapters.loader.resident(job.job.version):
            if not self._is_wanted(job):
                return
            job.num_prompt_tokens = sum(len(prompt.ids) for prompt in prompts)
            self.jobs.add_choices(job, choices)
            for request in requests:
                self.engine.add(request)
            self.publisher.report_admitted(job)

    async def _style_of(self, job: RunningJob) -> PromptStyle:
        """Return the prompt style of the job's adapter, loading the adapter first if necessary."""
        version, adapters = job.job.version, self.adapters
        if (style := adapters.residency.style(version)) is None:
            async with adapters.loader.resident(version):
                style = adapters.residency.style(version)
        assert style is not None
        return style

    def _is_wanted(self, job: RunningJob) -> bool:
        """Return whether this worker still owns the job and the job hasn't ended."""
        return self.jobs.get(job.id) is job and job.end is None

    async def _wait_for_memory(self, job: RunningJob) -> None:
        """Return the job to the queue, because there is no device memory for its adapter."""
        version, residency = job.job.version, self.adapters.residency
        residency.crowded_out(version)
        try:
            await self.adapters.advertiser.end_load(version)
            await self._release(job)
        finally:
            residency.job_returned(version)

    async def _do_without_adapter(self, job: RunningJob, error: AdapterRejected) -> None:
        """Return the job to the queue if another worker holds its adapter. Otherwise, fail it."""
        version, advertiser = job.job.version, self.adapters.advertiser
        log.warning(
            "adapter_unavailable",
            job_id=job.id,
            model=job.job.model,
            version=version,
            code=ErrorCode.ADAPTER_UNAVAILABLE,
            error=str(error),
        )
        await advertiser.end_load(version)
        await advertiser.report_failed_load(version, error)
        if await advertiser.is_held_elsewhere(version):
            self.adapters.residency.refuse(version, time.monotonic())
            await self._release(job)
            return
        code, message = ErrorCode.ADAPTER_UNAVAILABLE, f"adapter {version} can't be loaded: {error}"
        self.publisher.end(job, JobState.FAILED, JobError(code=code, message=message))

    async def _release(self, job: RunningJob) -> None:
        """Return a job to the queue."""
        if not self._is_wanted(job):
            return
        wid = self.lease.wid
        self.jobs.remove(job)
        await retry_until_available(lambda: self.queue.release(wid, [job.id]))
        log.info("job_released", job_id=job.id, model=job.job.model, try_=job.claimed.try_)
