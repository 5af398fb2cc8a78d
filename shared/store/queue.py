"""The job queue of one pool: typed methods, one Lua script call each.

A call that fails with `RedisUnavailable` may have been carried out. Beat, finish, cancel, release,
reap and reconcile may be repeated; a claim or a publication may not: a lost claim is found by
`reconcile`, and readers drop events that they have seen.
"""

import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import orjson

from shared.errors import (
    DuplicateJob,
    ErrorCode,
    JobError,
    JobFailed,
    LeaseLost,
    ProtocolMismatch,
    QueueFull,
)
from shared.protocol.codec import (
    decode_job,
    encode_events,
    encode_job,
    encode_result,
    encode_worker_info,
)
from shared.protocol.events import End, Event, Tokens
from shared.protocol.ids import AdapterVersion, ApiId, InspectionId, JobId, WorkerId
from shared.protocol.jobs import ClaimedJob, Job, JobState
from shared.protocol.limits import Limits
from shared.protocol.refusals import quarantined, too_large, unloaded
from shared.protocol.results import Result
from shared.protocol.workers import WorkerInfo
from shared.store.chunks import chunks
from shared.store.connection import MAX_BLOCK_S, OutOfMemory, Redis, redis_errors
from shared.store.durability import Durability
from shared.store.job_handover import Settlement
from shared.store.keys import Keys
from shared.store.pool_views import Backlog, JobView, QueueCounts, RedisMemory, Views, WorkerView
from shared.store.queue_replies import (
    Claim,
    Copy,
    FinishOutcome,
    Mail,
    Reaped,
    Standing,
    Undecodable,
)
from shared.store.scripts import Arg, Scripts
from shared.store.sweep import Sweep

PRIORITY_STEP = 1000
"""Tokens of the fair tag that one step of priority is worth."""
EPOCH_BITS = 53
"""As many as Redis' scores and scripts keep exactly."""
VERSIONS_AT_ONCE = 128
COPIES_AT_ONCE = 32
"""How much one call of a script looks at, so that none takes long."""


class Queue:
    """One pool's queue, seen from the API and from workers.

    With a `durability`, jobs are accepted and claimed only once these writes are durable.
    """

    def __init__(self, redis: Redis, keys: Keys, *, durability: Durability | None = None) -> None:
        self._redis = redis
        self._keys = keys
        self._durability = durability
        self._scripts = Scripts(redis, keys)
        self._views = Views(redis, keys)
        self._settlement = Settlement(redis, keys, self._scripts)
        self._sweep = Sweep(self._scripts, self._settlement)
        self._told: dict[WorkerId, set[AdapterVersion]] = {}
        """What Redis was told that workers hold: claims name only what differs from it."""
        self._differs: set[WorkerId] = set()
        """Workers of which Redis knew something else at their last beat."""

    async def register(
        self,
        wid: WorkerId,
        *,
        lease_ms: int,
        info: WorkerInfo,
        residents: Sequence[AdapterVersion],
    ) -> None:
        """Make a new worker known, with what it holds. A worker id is never used again."""
        await self._scripts.run("register", wid, lease_ms, encode_worker_info(info))
        self._told[wid] = set()
        await self.set_residents(wid, add=residents)

    async def beat(
        self,
        wid: WorkerId,
        *,
        lease_ms: int,
        info: WorkerInfo,
        loading: Sequence[AdapterVersion] = (),
        known: Mapping[JobId, int] | None = None,
    ) -> Standing:
        """Renew the lease, and hear how the worker's jobs stand.

        Args:
            wid: the worker.
            lease_ms: how long the pool waits for the next beat.
            info: the worker as operators see it.
            loading: versions that are left to it for a while longer.
            known: its jobs -> the epochs of their claims.

        Raises:
            LeaseLost: the worker was given up and must stop what it runs.
        """
        jobs = known or {}
        args = wid, lease_ms, encode_worker_info(info), len(jobs), *_flat(jobs.items()), *loading
        reply = await self._scripts.run("beat", *args)
        if reply == -1:
            raise self._lease_lost(wid)
        booked, fenced, cancelled, forgotten, num_held = reply
        await self._compare_residents(wid, num_held)
        return Standing(
            booked=booked,
            fenced=_ids(fenced),
            cancelled=_ids(cancelled),
            num_forgotten=forgotten,
        )

    async def _compare_residents(self, wid: WorkerId, num_held: int) -> None:
        """Tell again what the worker holds, if Redis has forgotten some of it in a failover.

        Only at the second difference: another call may be on its way.
        """
        told = self._told.get(wid)
        if told is None or num_held == len(told):
            self._differs.discard(wid)
        elif wid not in self._differs:
            self._differs.add(wid)
        else:
            await self._tell_again(wid, told)

    async def _tell_again(self, wid: WorkerId, told: set[AdapterVersion]) -> None:
        with redis_errors():
            raw = await self._redis.smembers(self._keys.residents(wid))  # type: ignore[misc]
        held = {AdapterVersion(version.decode()) for version in raw}
        await self.set_residents(wid, add=sorted(told - held), remove=sorted(held - told))

    async def set_residents(
        self,
        wid: WorkerId,
        *,
        add: Sequence[AdapterVersion] = (),
        remove: Sequence[AdapterVersion] = (),
    ) -> list[AdapterVersion]:
        """Tell what the worker has loaded, dropped, or failed to load.

        Returns those of `add` that other workers hold as well.

        Raises:
            LeaseLost: the worker was given up.
        """
        shared: list[AdapterVersion] = []
        for page in chunks(add, VERSIONS_AT_ONCE):
            shared += await self._change_residents(wid, len(page), page)
        for page in chunks(remove, VERSIONS_AT_ONCE):
            await self._change_residents(wid, 0, page)
        return shared

    async def _change_residents(
        self, wid: WorkerId, num_added: int, versions: Sequence[AdapterVersion]
    ) -> list[AdapterVersion]:
        shared = await self._scripts.run("residents", wid, num_added, *versions)
        if shared == 0:
            raise self._lease_lost(wid)
        told = self._told.setdefault(wid, set())
        if num_added:
            told.update(versions)
        else:
            told.difference_update(versions)
        return [AdapterVersion(version.decode()) for version in shared]

    async def shrink(
        self,
        wid: WorkerId,
        copies: Mapping[AdapterVersion, int],
        *,
        due: Collection[AdapterVersion],
        steal_ms: int,
    ) -> dict[AdapterVersion, Copy]:
        """How copies stand beside those of other workers; takes back that the worker holds them.

        It does so with those that are `due` if they are surplus, never with the last holder's.
        May be repeated.

        Args:
            wid: the worker.
            copies: versions that it holds -> how many of their jobs it runs.
            due: those that were surplus for long enough.
            steal_ms: a job that waits for longer shows that a copy is needed.

        Raises:
            LeaseLost: the worker was given up.
        """
        standing: dict[AdapterVersion, Copy] = {}
        for page in chunks(list(copies), COPIES_AT_ONCE):
            args = [(version, copies[version], int(version in due)) for version in page]
            found = await self._scripts.run("shrink", wid, steal_ms, *_flat(args))
            if found == 0:
                raise self._lease_lost(wid)
            standing |= zip(page, (Copy(raw.decode()) for raw in found), strict=True)
        gone = {version for version, copy in standing.items() if copy is Copy.GONE}
        self._told.setdefault(wid, set()).difference_update(gone)
        return standing

    async def start_load(self, wid: WorkerId, version: AdapterVersion) -> bool:
        """Be the one worker that loads a version which waits and nobody holds; False: it isn't.

        Until `set_residents` says what came of it, others claim none of its jobs.
        """
        return bool(await self._scripts.run("load", wid, version))

    async def cold_heads(self, limit: int) -> list[AdapterVersion]:
        """Versions that wait and nobody holds, by the order of their first jobs."""
        return await self._views.cold_heads(limit)

    async def enqueue(self, job: Job, limits: Limits, *, is_suspect: bool = False) -> int:
        """Accept a job; returns its position in the queue of its version, from 1.

        A suspect runs alone from the start: it has killed workers before.

        Raises:
            DuplicateJob: a job of this id is stored already; so a call that is repeated after
                `RedisUnavailable` says that the first one was carried out.
            QueueFull: a limit of `limits`, or of Redis' memory, is reached.
            JobFailed: its adapter was unloaded or quarantined since the job was made, or no live
                worker holds as many tokens.
        """
        try:
            args = _enqueue_args(job, limits, is_suspect=is_suspect)
            reply = await self._scripts.run(
                "enqueue", *args, durability=self._durability, is_promise=_is_accepted
            )
        except OutOfMemory as error:
            raise QueueFull("memory", (await self.counts()).waiting) from error
        match reply:
            case [b"ok", position]:
                return cast(int, position)
            case [b"dup", state]:
                raise DuplicateJob(job.id, state.decode())
            case [b"gone"]:
                raise JobFailed(unloaded(job))
            case [b"quarantined"]:
                raise JobFailed(quarantined(job))
            case [b"large", most]:
                raise JobFailed(too_large(job, most))
            case [_, which, waiting]:
                raise QueueFull(which.decode(), waiting)
        raise AssertionError(f"enqueue returned {reply!r}")

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
    ) -> Claim:
        """Take jobs, best first: overdue ones, those of `residents`, then others.

        A worker that finds nothing, and has room, is parked: one job later its mailbox says
        `job`. Claim again until nothing comes, when there is room again, and once a second.

        Args:
            wid: the worker.
            sequences: choices that it has room for; 0 unparks it. A worker that owns nothing gets
                one job however large that is.
            tokens: room in estimated tokens, `Job.cost`.
            steal_ms: how long a job waits for the workers that hold its adapter.
            max_cold: how many versions outside of `residents` it would load now.
            residents: what it holds or is loading.
            refused: what it can't load.
            load_ms: how long a job of an adapter that nobody holds waits behind those of
                `residents` although it is its turn: as long as its load will take.

        Raises:
            LeaseLost: the worker was given up.
        """
        epoch = secrets.randbits(EPOCH_BITS) or 1
        told, held = self._told.get(wid, set()), set(residents)
        more, less = held - told, told - held
        args: list[Arg] = [epoch, sequences, tokens, steal_ms, max_cold, load_ms]
        args += [len(more), *more, len(less), *less, *refused]
        reply = await self._scripts.run(
            "claim", wid, *args, durability=self._durability, is_promise=_takes_jobs
        )
        match reply:
            case [b"ok", next_steal_ms, *taken]:
                entries = [_claimed(entry, epoch) for entry in taken]
                return Claim(
                    jobs=tuple(each for each in entries if isinstance(each, ClaimedJob)),
                    undecodable=tuple(each for each in entries if isinstance(each, Undecodable)),
                    next_steal_ms=next_steal_ms if next_steal_ms >= 0 else None,
                )
        raise self._lease_lost(wid)

    async def wait(self, wid: WorkerId, *, timeout_s: float) -> Mail | None:
        """The next message to the worker; None after `timeout_s`, at most two seconds.

        A message may be lost when the call is cancelled or Redis goes away.
        """
        with redis_errors():
            reply = await self._redis.blpop(  # type: ignore[misc]
                [self._keys.mailbox(wid)],
                timeout=min(timeout_s, MAX_BLOCK_S),  # type: ignore[arg-type]  # takes floats
            )
        if reply is None:
            return None
        kind, _, subject = reply[1].decode().partition(" ")
        if kind == "inspect":
            return Mail(kind=kind, inspection=InspectionId(subject))
        return Mail(kind=kind, job=JobId(subject) if subject else None)

    async def release(self, wid: WorkerId, ids: Sequence[JobId]) -> int:
        """Give jobs back, at their old places and without blame; returns how many it owned."""
        return await self._settlement.release(wid, ids)

    async def publish(
        self,
        wid: WorkerId,
        events: Mapping[ApiId, Sequence[Event]],
        checkpoints: Sequence[Tokens] = (),
        *,
        epochs: Mapping[JobId, int] | None = None,
    ) -> Standing:
        """Show events to API processes and keep checkpoints, all or nothing.

        Returns how the jobs stand; if any is `fenced`, nothing was written.

        Args:
            wid: the worker.
            events: what to show, by API process.
            checkpoints: what to keep.
            epochs: those of the jobs' claims; a job without one only has to be the worker's.

        Raises:
            LeaseLost: the worker was given up; nothing was written.
        """
        told = [event for batch in (*events.values(), checkpoints) for event in batch]
        known = epochs or {}
        jobs = {event.job: known.get(event.job, 0) for event in told}
        args: list[Arg] = [len(jobs), *_flat(jobs.items()), len(events)]
        args += _flat((api, encode_events(batch)) for api, batch in events.items())
        args += _flat((tokens.job, encode_events([tokens])) for tokens in checkpoints)
        reply = await self._scripts.run("publish", wid, *args)
        if reply == 0:
            raise self._lease_lost(wid)
        fenced, cancelled = reply
        return Standing(fenced=_ids(fenced), cancelled=_ids(cancelled))

    async def finish(
        self, wid: WorkerId, end: End, result: Result, *, epoch: int = 0
    ) -> FinishOutcome:
        """End a job: store its result and send its final event. May be repeated.

        `epoch` is that of the job's claim; 0 stands for any.
        """
        outcome = await self._scripts.run(
            "finish",
            wid,
            end.job,
            end.try_,
            epoch,
            end.state,
            orjson.dumps(end.usage),
            orjson.dumps(end.error),
            end.usage.prompt_tokens + end.usage.completion_tokens if end.usage else "",
            encode_events([end]),
            encode_result(result),
            int(_is_fault_of_ours(end)),
        )
        return FinishOutcome(outcome.decode())

    async def cancel(self, job_id: JobId, *, error: JobError | None = None) -> JobState | None:
        """Cancel a job, giving `error` as the reason.

        Returns its state after the call: CANCELLED, RUNNING when its worker was told to stop, or
        the final state that it had before. None: there is no such job.
        """
        reason = error or JobError(code=ErrorCode.CANCELLED, message="the job was cancelled")
        state = await self._scripts.run("cancel", job_id, orjson.dumps(reason))
        return JobState(state.decode()) if state else None

    async def leave(self, wid: WorkerId) -> None:
        """Sign a worker off; jobs that it still owns are released."""
        self._told.pop(wid, None)
        await self._scripts.run("leave", wid)
        await self._settlement.settle(wid)

    async def reap(self, *, every_ms: int = 0) -> Reaped:
        """Look after the pool: give up silent workers, and end what is overdue or quarantined.

        A worker is missing when its lease has ended, and given up by a later call, a sixth of its
        lease afterwards or more. Anybody may call it; of those who do so every `every_ms`, one does
        the work each time. Each call of Redis is short.
        """
        return await self._sweep.run(every_ms)

    async def reconcile(self, wid: WorkerId, known: Sequence[JobId], *, grace_ms: int) -> int:
        """Give back jobs that are booked on the worker for `grace_ms`, but not `known` to it."""
        unknown = await self._scripts.run("reconcile", wid, grace_ms, *known)
        return await self._settlement.release(wid, [JobId(raw.decode()) for raw in unknown])

    def _lease_lost(self, wid: WorkerId) -> LeaseLost:
        self._told.pop(wid, None)
        return LeaseLost(f"worker {wid} was given up: its lease ended, its jobs run elsewhere")

    async def job_view(self, job_id: JobId) -> JobView | None:
        """The job, or None when it is unknown or no longer kept."""
        return await self._views.job(job_id)

    async def result(self, job_id: JobId) -> Result | None:
        """How the job ended; None before, and after it is no longer kept."""
        return await self._views.result(job_id)

    async def workers(self) -> list[WorkerView]:
        """Every worker that was not given up, by id."""
        return await self._views.workers()

    async def counts(self) -> QueueCounts:
        """How much waits, and how much ended so far."""
        return await self._views.counts()

    async def backlogs(self) -> list[Backlog]:
        """Versions with at least one waiting job, the one whose next job waits longest first."""
        return await self._views.backlogs()

    async def memory(self) -> RedisMemory:
        """How full Redis is, for whatever purpose."""
        return await self._views.memory()


def _is_accepted(reply: list[Any]) -> bool:
    """Whether `enqueue` says that the job is in the queue, by this call or an earlier one."""
    return reply[0] in (b"ok", b"dup")


def _takes_jobs(reply: list[Any]) -> bool:
    """Whether `claim` took any; to wait for nothing would keep an idle worker from its mailbox."""
    return len(reply) > 2


def _enqueue_args(job: Job, limits: Limits, *, is_suspect: bool) -> tuple[Arg, ...]:
    return (
        *(job.id, job.version, job.model, job.tenant),
        *(job.priority * PRIORITY_STEP, job.cost, job.num_choices, job.reply_to),
        *(job.deadline_ms, limits.retain_ms),
        *(limits.max_waiting, limits.max_waiting_adapter, limits.max_waiting_tenant),
        *(encode_job(job), int(is_suspect)),
        *(limits.max_bytes, limits.max_bytes_tenant),
    )


def _is_fault_of_ours(end: End) -> bool:
    """Whether the same request may well be answered another time."""
    return end.state is JobState.FAILED and end.error is not None and end.error.status >= 500


def _claimed(entry: tuple[bytes, int, int, bytes, int], epoch: int) -> ClaimedJob | Undecodable:
    raw_id, try_, is_suspect, body, left_ms = entry
    try:
        return ClaimedJob(
            job=decode_job(body),
            try_=try_,
            suspect=bool(is_suspect),
            epoch=epoch,
            left_ms=left_ms,
        )
    except (ProtocolMismatch, AttributeError, TypeError, KeyError, ValueError) as error:
        reason = str(error) if isinstance(error, ProtocolMismatch) else repr(error)
        return Undecodable(id=JobId(raw_id.decode()), try_=try_, epoch=epoch, reason=reason)


def _flat(rows: Iterable[Iterable[Any]]) -> Iterator[Any]:
    return (word for row in rows for word in row)


def _ids(raw: Iterable[bytes]) -> frozenset[JobId]:
    return frozenset(JobId(each.decode()) for each in raw)
