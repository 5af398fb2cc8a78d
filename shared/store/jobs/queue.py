"""Job queue of one pool: typed methods for the Lua scripts in `shared/store/lua/jobs/`.

A call that fails with `RedisUnavailable` may have been executed. `beat`, `finish`, `cancel`,
`release`, `reap` and `reconcile` may be repeated. `publish` may be repeated with the same events,
because readers drop events that they have seen. `claim` must not be repeated: if its reply was
lost, `reconcile` releases the claimed jobs.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import orjson
import structlog

from shared.errors import ErrorCode, JobError, LeaseLost, QueueFull, ReachedLimit
from shared.protocol.access.rates import read_rates
from shared.protocol.answers import AnswerSpec
from shared.protocol.capabilities import (
    EVERYTHING,
    Capabilities,
    encode_capabilities,
    encode_words,
)
from shared.protocol.codec import (
    encode_answer_spec,
    encode_events,
    encode_job,
    encode_request,
    encode_worker_info,
)
from shared.protocol.enqueue import Enqueued, EnqueueOptions, IdempotencyKey, QueueLimits
from shared.protocol.events import End, Event, Tokens
from shared.protocol.ids import (
    AdapterVersion,
    ApiId,
    InspectionId,
    JobId,
    WorkerId,
    worker_name,
)
from shared.protocol.jobs import Job, JobState
from shared.protocol.queue_replies import (
    Claim,
    FinishOutcome,
    Mail,
    MailKind,
    Reaped,
    Standing,
    enqueue_error,
)
from shared.protocol.results import Result
from shared.protocol.timeline import JobEvent
from shared.protocol.workers import WorkerInfo, WorkerMode
from shared.store.adapters.residency import ResidencyStore
from shared.store.jobs.ended_jobs import EndedJob, EndedJobs
from shared.store.jobs.job_handover import JobHandover
from shared.store.jobs.sweep import Sweep
from shared.store.redis.connection import OutOfMemory, Redis
from shared.store.redis.durability import Durability
from shared.store.redis.keys import Keys
from shared.store.redis.pool_store import PoolStore
from shared.store.redis.scripts import Arg, flat
from shared.store.views.pool_views import PoolViews

PRIORITY_STEP = 1000
"""Number of tokens by which one unit of priority moves a job ahead in fair queueing."""
EPOCH_BITS = 53
"""Size of a claim's epoch in bits. Scores and Lua numbers represent such integers exactly."""

log = structlog.get_logger()


class Queue(PoolStore):
    """Job queue of one pool, for front ends and workers."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        *,
        durability: Durability | None = None,
        residency: ResidencyStore | None = None,
    ) -> None:
        """Create a queue.

        If `durability` is given, calls of `enqueue`, `claim` and `attach` return once enough copies
        of their writes exist. `residency` is the store through which the workers of this process
        report the adapter versions that they hold. Only a process with workers passes this store.
        """
        super().__init__(redis, keys)
        self._durability = durability
        self._residency = residency or ResidencyStore(redis, keys)
        self._ends = EndedJobs(redis, keys)
        self._handover = JobHandover(redis, keys)
        self._sweep = Sweep(self._scripts, self._handover)

    async def register(
        self,
        wid: WorkerId,
        *,
        lease_ms: int,
        info: WorkerInfo,
        residents: Sequence[AdapterVersion],
        mode: WorkerMode = WorkerMode.SERVING,
    ) -> None:
        """Add a worker to the pool, and record the versions that it holds. Its id must be new.

        A worker that was paused under an earlier id passes its `mode`.

        Raises:
            LeaseLost: another worker of the pool has the same short name.
        """
        args = wid, lease_ms, encode_worker_info(info), mode
        if await self._scripts.run("register", *args) == b"taken":
            raise LeaseLost(f"another worker of the pool is named {worker_name(wid)}")
        self._residency.begin(wid)
        await self._residency.set_residents(wid, add=residents)

    async def beat(
        self,
        wid: WorkerId,
        *,
        lease_ms: int,
        info: WorkerInfo,
        loading: Sequence[AdapterVersion] = (),
        known: Mapping[JobId, int] | None = None,
    ) -> Standing:
        """Renew the worker's lease, and return the state of its jobs.

        The call also renews the exclusive rights to load the versions `loading`. `known` has the
        jobs that the worker runs, with the epochs of their claims.

        Raises:
            LeaseLost: the worker was declared dead and must stop its jobs.
        """
        jobs = known or {}
        args = wid, lease_ms, encode_worker_info(info), len(jobs), *flat(jobs.items()), *loading
        reply = await self._scripts.run("beat", *args)
        if reply == -1:
            raise self._residency.lease_lost(wid)
        booked, fenced, cancelled, forgotten, num_held, mode = reply
        await self._residency.repair(wid, num_held)
        return Standing(
            booked=booked,
            fenced=_ids(fenced),
            cancelled=_ids(cancelled),
            num_forgotten=forgotten,
            mode=WorkerMode(mode.decode()),
        )

    async def enqueue(
        self,
        job: Job,
        limits: QueueLimits,
        *,
        options: EnqueueOptions = EnqueueOptions(),  # noqa: B008  # immutable
        is_suspect: bool = False,
        registry_revision: str = "",
    ) -> Enqueued:
        """Accept a job, or find the job of an earlier request with the same idempotency key.

        If `is_suspect`, the job runs alone, like a job whose earlier workers died while they ran
        it. If a `registry_revision` is given, the job is refused if the registry has another
        revision.

        Raises:
            RegistryChanged: the registry has another revision.
            DuplicateJob: a job with this id already exists. If this call repeats one that failed
                with `RedisUnavailable`, the failed call did add the job.
            QueueFull: a limit in `limits` or the limit of Redis' memory is reached.
            RateLimited: the request exceeds a limit of its API key.
            JobFailed: the adapter was unloaded or quarantined after the request was admitted; no
                live worker that serves the job has a KV cache large enough for it; there are live
                workers, but none of them serves the job; the API key isn't valid; or an earlier
                request had the same idempotency key and another body.
        """
        books = options.books_pool
        try:
            reply = await self._scripts.run(
                "enqueue",
                *flat(
                    {
                        **_job_args(job, is_suspect=is_suspect),
                        **asdict(limits),
                        **_option_args(options),
                        "registry": registry_revision,
                        "books": "" if books in ("", self._keys.pool) else Keys(books).prefix,
                    }.items()
                ),
                durability=self._durability,
                is_promise=_is_accepted,
            )
        except OutOfMemory as error:
            counts = await PoolViews(self._redis, self._keys).counts()
            raise QueueFull(ReachedLimit.MEMORY, counts.waiting) from error
        match reply:
            case [b"ok", position, *rates]:
                return Enqueued(job.id, position, rates=read_rates(rates))
            case [b"same", earlier]:
                return Enqueued(JobId(earlier.decode()), 0, is_new=False)
        raise enqueue_error(job, reply)

    async def have_jobs(self, tenant: str, keys: Sequence[str]) -> list[bool]:
        """Return whether each of a tenant's idempotency keys has a job, in the order of `keys`."""
        pipe = self._redis.pipeline(transaction=False)
        for key in keys:
            digest = IdempotencyKey(key=key, body_digest="").digest
            pipe.exists(self._keys.idempotency(tenant, digest))
        return [bool(reply) for reply in await pipe.execute()]

    async def claim(
        self,
        wid: WorkerId,
        *,
        sequences: int,
        tokens: int,
        steal_ms: int,
        max_cold: int,
        residents: Sequence[AdapterVersion],
        refused: Sequence[AdapterVersion] = (),
        load_ms: int = 0,
        serves: Capabilities = EVERYTHING,
        idle_sequences: int | None = None,
        idle_tokens: int | None = None,
    ) -> Claim:
        """Take jobs for a worker from the queues.

        Jobs of `residents` are taken first, then jobs of other versions. One job of another version
        goes first if it has waited for too long: for longer than `load_ms` if no worker holds its
        version, otherwise for longer than a multiple of `steal_ms`.

        If the worker may take no further job but has capacity left, it is parked. When a job is
        enqueued, the mailbox of a parked worker gets a `job` message. Callers repeat a call
        that returns jobs until the worker is parked. They call again whenever capacity becomes
        free, and at least once a second.

        Args:
            wid: the worker.
            sequences: number of sequences that the worker has capacity for. If it is 0, the worker
                gets no job and is no longer parked.
            tokens: estimated tokens (`Job.cost`) that the worker has capacity for. A worker without
                jobs may get one that exceeds this number or `sequences`.
            steal_ms: milliseconds for which a job is reserved for workers that hold its adapter.
            max_cold: maximum number of further versions, which the worker must load.
            residents: versions that the worker holds or loads.
            refused: versions that the worker can't load.
            load_ms: expected milliseconds for loading a version.
            serves: the capabilities with which the worker registered.
            idle_sequences: like `sequences`, for preemptible jobs; by default `sequences`.
            idle_tokens: like `tokens`, for preemptible jobs; by default `tokens`.

        Raises:
            LeaseLost: the worker was declared dead.
        """
        claim_epoch = secrets.randbits(EPOCH_BITS) or 1
        more, less = self._residency.unreported(wid, residents)
        args: list[Arg] = [claim_epoch, sequences, tokens, steal_ms, max_cold, load_ms]
        args += [sequences if idle_sequences is None else idle_sequences]
        args += [tokens if idle_tokens is None else idle_tokens]
        args += [encode_capabilities(serves), len(more), *more, len(less), *less, *refused]
        reply = await self._scripts.run(
            "claim", wid, *args, durability=self._durability, is_promise=_has_jobs
        )
        if reply[0] != b"ok":
            raise self._residency.lease_lost(wid)
        return Claim.of(reply, claim_epoch)

    async def wait(self, wid: WorkerId, *, timeout_s: float) -> Mail | None:
        """Return the next message to the worker, or None if none arrives in time.

        The call waits for `timeout_s`, but at most two seconds. A message may be lost if the call
        is cancelled or fails. A message that only later releases of Lorikeet know is logged and
        dropped.
        """
        mail = await self._take_first(self._keys.mailbox(wid), timeout_s)
        word, _, subject = (mail or b"").decode().partition(" ")
        if word not in set(MailKind):
            if mail:
                log.warning("mail_unknown", worker=wid, kind=word)
            return None
        kind = MailKind(word)
        if kind is MailKind.INSPECT:
            return Mail(kind=kind, inspection=InspectionId(subject))
        return Mail(kind=kind, job=JobId(subject) if subject else None)

    async def release(self, wid: WorkerId, ids: Sequence[JobId]) -> int:
        """Return jobs to their old places in the queues, as `JobHandover.release` does."""
        return await self._handover.release(wid, ids)

    async def publish(
        self,
        wid: WorkerId,
        events: Mapping[ApiId, Sequence[Event]],
        checkpoints: Sequence[Tokens] = (),
        *,
        claim_epochs: Mapping[JobId, int] | None = None,
        used: Mapping[JobId, int] | None = None,
        moments: Sequence[tuple[JobId, JobEvent]] = (),
        num_acknowledged: int = 0,
    ) -> Standing:
        """Publish events to front ends and store checkpoints, in one transaction.

        If the returned standing has fenced jobs, nothing was written.

        Args:
            wid: the worker.
            events: events to publish, by front end.
            checkpoints: tokens to store.
            claim_epochs: epochs of the jobs' claims. For a job without an epoch, any claim by the
                worker is valid.
            used: for each job that has a checkpoint here and an API key with a limit of tokens,
                the number of its tokens so far.
            moments: events to add to the timelines of jobs.
            num_acknowledged: number of the worker's earlier publications that were acknowledged.
                The returned standing says how many of them Redis has lost.

        Raises:
            LeaseLost: the worker was declared dead. Nothing was written.
        """
        published = [event for batch in (*events.values(), checkpoints) for event in batch]
        known = claim_epochs or {}
        jobs = {event.job: known.get(event.job, 0) for event in published}
        args: list[Arg] = [num_acknowledged, len(jobs), *flat(jobs.items()), len(events)]
        args += flat((api, encode_events(batch)) for api, batch in events.items())
        args += [len(moments), *flat(moments)]
        left = dict(used or {})  # a job with several stored choices is charged once
        args += flat((t.job, encode_events([t]), left.pop(t.job, 0)) for t in checkpoints)
        reply = await self._scripts.run("publish", wid, *args)
        if reply == 0:
            raise self._residency.lease_lost(wid)
        fenced, cancelled, num_lost = reply
        return Standing(fenced=_ids(fenced), cancelled=_ids(cancelled), num_lost=num_lost)

    async def finish(
        self, wid: WorkerId, end: End, result: Result, *, claim_epoch: int = 0
    ) -> FinishOutcome:
        """End a job and publish its end. The call may be repeated.

        `claim_epoch` is the epoch of the job's claim; 0 matches any claim.
        """
        return await self._ends.finish(EndedJob(wid, end, result, claim_epoch))

    @property
    def is_strict(self) -> bool:
        """Whether durability is strict: whether the queue was created with `durability`."""
        return self._durability is not None

    async def confirm_ends(self, jobs: Sequence[EndedJob]) -> None:
        """With strict durability, wait until the ends of all `jobs` are durable.

        If a failover has lost the end of a job, the job is ended again.

        Raises:
            RedisUnavailable: Redis can't be reached, or too few copies exist within the time limit.
        """
        if self._durability:
            await self._ends.confirm(jobs, self._durability)

    async def cancel(self, job_id: JobId, *, error: JobError | None = None) -> JobState | None:
        """Cancel a job with `error` as the reason, and return its state after the call.

        The state is CANCELLED if the job waited, RUNNING if its worker was asked to stop the job,
        or the final state that the job already had. Returns None if no such job exists.
        """
        reason = error or JobError(code=ErrorCode.CANCELLED, message="the job was cancelled")
        state = await self._scripts.run("cancel", job_id, orjson.dumps(reason))
        return JobState(state.decode()) if state else None

    async def attach(self, job_id: JobId, api: ApiId) -> None:
        """Send the events of an unfinished job to an API process that didn't accept the job.

        The process is assumed to have a client of the job until the process calls `abandon` or
        dies. Calls for ended and unknown jobs have no effect. With strict durability, the effect
        survives a failover.
        """
        await self._scripts.run("attach", job_id, api, durability=self._durability)

    async def abandon(self, job_id: JobId, api: ApiId, *, grace_ms: int) -> None:
        """Record that the last client of a job at this API process has disconnected.

        If no other living process has a client of the job, the job is cancelled after `grace_ms`,
        unless a client comes back or the job was enqueued with `keeps_running`.
        """
        await self._scripts.run("abandon", job_id, api, grace_ms)

    async def undo_abandon(self, job_id: JobId) -> None:
        """Record that a client has asked for an abandoned job, so that it isn't cancelled."""
        await self._redis.zrem(self._keys.abandoned, job_id)

    async def beat_api(self, api: ApiId, *, is_internal: bool = False) -> bool:
        """Report that an API process is alive, and return whether it must attach itself again.

        An internal API process is part of another process, so its start and end aren't incidents.
        The result is True if the process was unknown or assumed to be dead. Its jobs may have been
        abandoned meanwhile, so it must call `attach` for each job that still has a client.
        """
        return bool(await self._scripts.run("beat_api", api, int(is_internal)))

    async def erase(self, job_id: JobId) -> JobState | None:
        """Delete the prompt, answer and record of an ended job, and return the job's last state.

        An unfinished job isn't deleted. Returns None if no such job exists.
        """
        state = await self._scripts.run("erase", job_id)
        return JobState(state.decode()) if state else None

    async def leave(self, wid: WorkerId) -> None:
        """Remove a worker from the pool, and requeue the jobs that it still owns."""
        self._residency.end(wid)
        await self._scripts.run("leave", wid)
        await self._handover.hand_over_all(wid)

    async def reap(self, *, every_ms: int = 0) -> Reaped:
        """Declare silent workers dead, and end overdue jobs and jobs of quarantined versions.

        The first call after the end of a worker's lease marks the worker as missing. A later call
        declares it dead if it is still missing after another sixth of the lease. Running jobs of
        dead front ends are abandoned, and cancelled if no client comes back. Any number of
        processes may call this method, but only one call in each period of `every_ms` does the
        work.
        """
        return await self._sweep.run(every_ms)

    async def retain(self) -> tuple[int, int]:
        """Delete ended jobs beyond the limit in bytes.

        Returns the number of jobs that expired, and the number of jobs that this call deleted.
        """
        return await self._sweep.retain()

    async def reconcile(self, wid: WorkerId, known: Sequence[JobId], *, grace_ms: int) -> int:
        """Release jobs that a worker has owned for `grace_ms` and doesn't know.

        The replies to the claims of these jobs were lost. Returns the number of jobs.
        """
        unknown = await self._scripts.run("reconcile", wid, grace_ms, *known)
        return await self._handover.release(wid, [JobId(raw.decode()) for raw in unknown])


def _is_accepted(reply: list[Any]) -> bool:
    """Return whether the reply of `enqueue.lua` means that the request is accepted."""
    return reply[0] in (b"ok", b"dup", b"same")


def _has_jobs(reply: list[Any]) -> bool:
    """Return whether the reply of `claim.lua` has jobs."""
    return len(reply) > 3


def _job_args(job: Job, *, is_suspect: bool) -> dict[str, Arg]:
    spec = AnswerSpec.of(job)
    return {
        "id": job.id,
        "version": job.version,
        "model": job.model,
        "tenant": job.tenant,
        "boost": job.priority * PRIORITY_STEP,
        "cost": job.cost,
        "sequences": job.num_sequences,
        "out": job.reply_to,
        "deadline_ms": job.deadline_ms,
        "body": encode_job(job),
        "spec": encode_answer_spec(spec),
        "request": encode_request(spec),
        "features": encode_words(job.features),
        "is_preemptible": int(job.is_preemptible),
        "is_suspect": int(is_suspect),
        "rid": job.rid,
    }


def _option_args(options: EnqueueOptions) -> dict[str, Arg]:
    idempotency = options.idempotency
    return {
        "weight": f"{options.weight:g}",
        "keeps_running": int(options.keeps_running),
        "idempotency_digest": idempotency.digest if idempotency else "",
        "body_digest": idempotency.body_digest if idempotency else "",
        "key_id": options.key_id,
        "only_repeats": int(options.only_repeats),
        "retry_of": options.retry_of or "",
        "letter": options.letter,
    }


def _ids(raw: Sequence[bytes]) -> frozenset[JobId]:
    return frozenset(JobId(each.decode()) for each in raw)
