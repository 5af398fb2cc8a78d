"""The job queue of one pool: typed methods, one Lua script call each.

A call that fails with `RedisUnavailable` may have been carried out. Beat, finish, cancel, release,
reap and reconcile may be repeated; a claim or a publication may not: a lost claim is found by
`reconcile`, and readers drop events that they have seen.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import orjson

from shared.codec import decode_job, encode_events, encode_job, encode_result, encode_worker_info
from shared.connection import MAX_BLOCK_S, OutOfMemory, Redis, redis_errors
from shared.errors import (
    DuplicateJob,
    ErrorCode,
    JobError,
    JobFailed,
    LeaseLost,
    ProtocolMismatch,
    QueueFull,
)
from shared.events import End, Event, Tokens
from shared.ids import AdapterVersion, ApiId, InspectionId, JobId, WorkerId
from shared.jobs import ClaimedJob, Job, JobState
from shared.keys import Keys
from shared.outcomes import Claim, Copy, FinishOutcome, Mail, Reaped, Undecodable
from shared.results import Result
from shared.scripts import Arg, Scripts
from shared.settings import ApiSettings
from shared.views import Backlog, JobView, QueueCounts, RedisMemory, Views, WorkerView
from shared.workers import WorkerInfo

PRIORITY_STEP = 1000
"""Tokens of the fair tag that one step of priority is worth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What may wait, and how long a finished job is kept."""

    max_waiting: int
    max_waiting_adapter: int
    max_waiting_tenant: int
    retain_ms: int

    @classmethod
    def of(cls, settings: ApiSettings) -> "Limits":
        """Those that a front end has."""
        return cls(
            max_waiting=settings.max_waiting,
            max_waiting_adapter=settings.max_waiting_adapter,
            max_waiting_tenant=settings.max_waiting_tenant,
            retain_ms=int(settings.retain_s * 1000),
        )


class Queue:
    """One pool's queue, seen from the API and from workers."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._scripts = Scripts(redis, keys)
        self._views = Views(redis, keys)

    async def register(
        self,
        wid: WorkerId,
        *,
        lease_ms: int,
        info: WorkerInfo,
        residents: Sequence[AdapterVersion],
    ) -> None:
        """Make a new worker known, with what it holds. A worker id is never used again."""
        await self._scripts.run("register", wid, lease_ms, encode_worker_info(info), *residents)

    async def beat(
        self,
        wid: WorkerId,
        *,
        lease_ms: int,
        info: WorkerInfo,
        loading: Sequence[AdapterVersion] = (),
    ) -> int:
        """Renew the lease; returns the number of jobs that are booked on the worker.

        What it is `loading` is left to it for a while longer.

        Raises:
            LeaseLost: the worker was given up and must stop what it runs.
        """
        booked: int = await self._scripts.run(
            "beat", wid, lease_ms, encode_worker_info(info), *loading
        )
        if booked < 0:
            raise _lease_lost(wid)
        return booked

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
        shared = await self._scripts.run("residents", wid, len(add), *add, *remove)
        if shared == 0:
            raise _lease_lost(wid)
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
        args: list[Arg] = [steal_ms]
        for version, running in copies.items():
            args += (version, running, int(version in due))
        found = await self._scripts.run("shrink", wid, *args)
        if found == 0:
            raise _lease_lost(wid)
        return dict(zip(copies, (Copy(raw.decode()) for raw in found), strict=True))

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
            JobFailed: its adapter was unloaded since the job was made.
        """
        try:
            reply = await self._scripts.run("enqueue", *_enqueue_args(job, limits), int(is_suspect))
        except OutOfMemory as error:
            raise QueueFull("memory", (await self.counts()).waiting) from error
        match reply:
            case [b"ok", position]:
                return cast(int, position)
            case [b"dup", state]:
                raise DuplicateJob(job.id, state.decode())
            case [b"gone"]:
                raise JobFailed(_unloaded(job))
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
        args: list[Arg] = [sequences, tokens, steal_ms, max_cold, load_ms]
        args += [len(residents), *residents, *refused]
        match await self._scripts.run("claim", wid, *args):
            case [b"ok", next_steal_ms, *taken]:
                entries = [_claimed(entry) for entry in taken]
                return Claim(
                    jobs=tuple(each for each in entries if isinstance(each, ClaimedJob)),
                    undecodable=tuple(each for each in entries if isinstance(each, Undecodable)),
                    next_steal_ms=next_steal_ms if next_steal_ms >= 0 else None,
                )
        raise _lease_lost(wid)

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
        released: int = await self._scripts.run("release", wid, *ids)
        return released

    async def publish(
        self,
        wid: WorkerId,
        events: Mapping[ApiId, Sequence[Event]],
        checkpoints: Sequence[Tokens] = (),
    ) -> None:
        """Show events to API processes and keep checkpoints, all or nothing.

        Raises:
            LeaseLost: the worker was given up; nothing was written.
        """
        args: list[Arg] = []
        for api, batch in events.items():
            args += (api, encode_events(batch))
        for tokens in checkpoints:
            args += (tokens.job, encode_events([tokens]))
        if not await self._scripts.run("publish", wid, len(events), *args):
            raise _lease_lost(wid)

    async def finish(self, wid: WorkerId, end: End, result: Result) -> FinishOutcome:
        """End a job: store its result and send its final event. May be repeated."""
        outcome = await self._scripts.run(
            "finish",
            wid,
            end.job,
            end.try_,
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
        await self._scripts.run("leave", wid)

    async def reap(self) -> Reaped:
        """Give up the workers whose lease has ended, and expire overdue jobs that nobody claims.

        Anybody may call it, about once a second; the work of one call is bounded.
        """
        workers, requeued, ended, expired = await self._scripts.run("reap")
        return Reaped(workers=workers, requeued=requeued, ended=ended, expired=expired)

    async def reconcile(self, wid: WorkerId, known: Sequence[JobId], *, grace_ms: int) -> int:
        """Give back jobs that are booked on the worker for `grace_ms`, but not `known` to it."""
        returned: int = await self._scripts.run("reconcile", wid, grace_ms, *known)
        return returned

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


def _enqueue_args(job: Job, limits: Limits) -> tuple[Arg, ...]:
    return (
        *(job.id, job.version, job.model, job.tenant),
        *(job.priority * PRIORITY_STEP, job.cost, job.num_choices, job.reply_to),
        *(job.deadline_ms, limits.retain_ms),
        *(limits.max_waiting, limits.max_waiting_adapter, limits.max_waiting_tenant),
        encode_job(job),
    )


def _is_fault_of_ours(end: End) -> bool:
    """Whether the same request may well be answered another time."""
    return end.state is JobState.FAILED and end.error is not None and end.error.status >= 500


def _claimed(entry: tuple[bytes, int, int, bytes]) -> ClaimedJob | Undecodable:
    raw_id, try_, is_suspect, body = entry
    try:
        return ClaimedJob(job=decode_job(body), try_=try_, suspect=bool(is_suspect))
    except (ProtocolMismatch, AttributeError, TypeError, KeyError, ValueError) as error:
        reason = str(error) if isinstance(error, ProtocolMismatch) else repr(error)
        return Undecodable(id=JobId(raw_id.decode()), try_=try_, reason=reason)


def _unloaded(job: Job) -> JobError:
    message = f"the model {job.model!r} was unloaded; GET /v1/models lists what is served"
    return JobError(code=ErrorCode.MODEL_NOT_FOUND, message=message, param="model")


def _lease_lost(wid: WorkerId) -> LeaseLost:
    return LeaseLost(f"worker {wid} was given up: its lease ended, its jobs run elsewhere")
