"""Read-only views of a pool's jobs, workers and counts, read with short commands."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.protocol.codec import decode_result, decode_worker_info
from shared.protocol.ids import AdapterVersion, JobId, WorkerId, worker_name
from shared.protocol.jobs import UNFINISHED, JobState
from shared.protocol.results import Result
from shared.protocol.workers import WorkerInfo, WorkerMode
from shared.store.redis.connection import Pipeline, ResponseError, unix_ms
from shared.store.redis.pool_store import PoolStore
from shared.store.views.job_view import (
    JOB_FIELDS,
    WITH_REQUEST,
    JobView,
    job_view,
    view_of_record,
)
from shared.store.views.key_memory import estimate_key_bytes

RATE_S = 30.0
"""Averaging period of the rate of answered jobs in seconds, as in `common.lua`."""
MIN_RATE = 1e-3
"""Minimum rate of answered jobs, in jobs per second, at which waits are estimated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Place of a waiting job in its queue, and how long it will probably wait."""

    position: int
    """Position in the queue of the job's version, from 1."""
    num_waiting: int
    """Number of jobs in this queue."""
    estimated_s: float | None
    """Estimated seconds until a worker takes the job; None if no job was answered recently."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """A worker that is in the pool."""

    id: WorkerId
    lease_left_ms: int
    """Milliseconds until the lease ends. Negative if the worker is late but not declared dead."""
    info: WorkerInfo
    residents: tuple[AdapterVersion, ...]
    """Versions that the worker holds, sorted."""
    running: int
    """Number of jobs that the worker owns."""
    mode: WorkerMode = WorkerMode.SERVING

    @property
    def name(self) -> str:
        """Short name of the worker, which no other worker of the pool has."""
        return worker_name(self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueCounts:
    """Counts of the pool's jobs and workers."""

    waiting: int
    totals: Mapping[JobState, int]
    """Number of jobs that have ended, by final state."""
    waiting_by_version: Mapping[AdapterVersion, int]
    retried: int
    """Number of times that a job was requeued because its worker died."""
    released: int
    """Number of times that a live worker released a job."""
    workers_lost: int
    """Number of workers that were declared dead."""
    failed_client: int = 0
    """Number of failed jobs whose requests were at fault: the error's status is below 500."""
    records_dropped: int = 0
    """Number of records of unanswered jobs that were deleted early for lack of memory."""
    more_sequences: int = 0
    """Number of sequences of unfinished jobs, not counting the first sequence of each job."""
    running: int = 0
    """Number of claimed jobs, including jobs of lost workers that aren't requeued yet."""
    slots_per_worker: int = 0
    """Maximum number of sequences of the worker that joined last; 0 if none has joined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """Waiting jobs of one adapter version."""

    version: AdapterVersion
    waiting: int
    next_waited_ms: int
    """Milliseconds that the first job in the queue has waited."""


@dataclass(frozen=True, slots=True)
class RedisMemory:
    """Memory use of Redis, in bytes."""

    used: int
    """Bytes that Redis uses in total, including other pools and applications."""
    limit: int
    """Redis' `maxmemory` setting, in bytes; 0 means no limit."""
    by_kind: Mapping[str, int] = field(default_factory=dict)
    """Estimated bytes of the pool's keys, by kind. The kind is the word after the pool's prefix."""


class PoolViews(PoolStore):
    """Reads the state of one pool."""

    async def job(self, job_id: JobId) -> JobView | None:
        """Return a job, or None if the job is unknown or its data has expired."""
        return (await self.read_jobs([job_id], WITH_REQUEST))[0]

    async def job_or_record(self, job_id: JobId) -> JobView | None:
        """Return a job. If its data has expired, return its record, or None if it has no record."""
        if view := await self.job(job_id):
            return view
        raw = await self._redis.get(self._keys.record(job_id))
        return view_of_record(raw) if raw is not None else None

    async def job_and_result(self, job_id: JobId) -> tuple[JobView | None, Result | None]:
        """Return a job and its result. Each is None if it is unknown or has expired.

        An unfinished job has no result. Both are read in one transaction. Otherwise the job could
        end between the two reads, and would seem to be done without a result.
        """
        pipe = self._redis.pipeline(transaction=True)
        pipe.get(self._keys.result(job_id))
        self._ask_for_jobs(pipe, [job_id], WITH_REQUEST)
        raw, *replies = await pipe.execute()
        (view,) = await self._job_views([job_id], replies, WITH_REQUEST)
        return view, decode_result(raw) if raw is not None else None

    async def wait(self, job_id: JobId) -> Wait | None:
        """Return the place of a waiting job, or None if the job doesn't wait."""
        fields = await self._redis.hmget(self._keys.job(job_id), ["state", "version"])  # type: ignore[misc]
        if fields[0] != b"queued":
            return None
        queue = self._keys.queue(AdapterVersion(fields[1].decode()))
        pipe = self._redis.pipeline(transaction=False)
        pipe.zrank(queue, job_id)
        pipe.zcard(queue)
        pipe.hmget(self._keys.counters, ["waiting", "rate", "rated"])
        pipe.time()
        rank, size, (waiting, rate, rated), (seconds, _) = await pipe.execute()
        if rank is None or not size:
            return None
        position = rank + 1
        per_s = float(rate or 0) * math.exp(-max(0, seconds - int(rated or 0) / 1000) / RATE_S)
        # Fair queueing serves all queues in turns, so they become empty at about the same time.
        estimate = position / size * int(waiting) / per_s if per_s > MIN_RATE else None
        return Wait(position=position, num_waiting=size, estimated_s=estimate)

    async def workers(self) -> list[WorkerView]:
        """Return every worker that is in the pool, sorted by id."""
        now_ms = unix_ms(await self._redis.time())
        leases = await self._redis.zrange(self._keys.workers, 0, -1, withscores=True)
        ids = [WorkerId(raw.decode()) for raw, _ in leases]
        pipe = self._redis.pipeline(transaction=False)
        for wid in ids:
            pipe.hmget(self._keys.worker(wid), ["info", "mode"])
            pipe.smembers(self._keys.residents(wid))
            pipe.zcard(self._keys.owned(wid))
        flat = await pipe.execute()
        views = [
            WorkerView(
                id=wid,
                lease_left_ms=int(lease) - now_ms,
                info=decode_worker_info(info),
                residents=tuple(AdapterVersion(v) for v in sorted(r.decode() for r in residents)),
                running=running,
                mode=WorkerMode((mode or b"").decode()),
            )
            for wid, (_, lease), (info, mode), residents, running in zip(
                ids, leases, flat[::3], flat[1::3], flat[2::3], strict=True
            )
            if info is not None
        ]
        return sorted(views, key=lambda view: view.id)

    async def live_workers(self) -> list[WorkerView]:
        """Return the workers whose leases are valid, sorted by id."""
        return [view for view in await self.workers() if view.lease_left_ms > 0]

    async def counts(self) -> QueueCounts:
        """Return the counts of jobs and of lost workers."""
        counters = await self._redis.hgetall(self._keys.counters)  # type: ignore[misc]
        versions = await self._ready()
        pipe = self._redis.pipeline(transaction=False)
        pipe.zcard(self._keys.due)
        pipe.hvals(self._keys.wide)
        for version in versions:
            pipe.zcard(self._keys.queue(version))
        unfinished, wide, *sizes = await pipe.execute()
        waiting = int(counters.get(b"waiting", 0))
        return QueueCounts(
            waiting=waiting,
            running=max(0, unfinished - waiting),
            more_sequences=sum(int(sequences) - 1 for sequences in wide),
            failed_client=int(counters.get(b"failed_client", 0)),
            records_dropped=int(counters.get(b"unanswered_dropped", 0)),
            slots_per_worker=int(counters.get(b"slots", 0)),
            totals={state: int(counters.get(state.encode(), 0)) for state in _FINAL},
            waiting_by_version={v: n for v, n in zip(versions, sizes, strict=True) if n},
            retried=int(counters.get(b"retried", 0)),
            released=int(counters.get(b"released", 0)),
            workers_lost=int(counters.get(b"workers_lost", 0)),
        )

    async def backlogs(self) -> list[Backlog]:
        """Return the backlogs of all versions, sorted by `next_waited_ms`, longest wait first."""
        now_ms = unix_ms(await self._redis.time())
        versions = await self._ready()
        pipe = self._redis.pipeline(transaction=False)
        for version in versions:
            pipe.zcard(self._keys.queue(version))
            pipe.zrange(self._keys.queue(version), 0, 0)
        flat = await pipe.execute()
        for head in flat[1::2]:
            pipe.hget(self._keys.job(JobId(head[0].decode() if head else "")), "enq")
        accepted = await pipe.execute()
        found = [
            Backlog(version=version, waiting=size, next_waited_ms=max(0, now_ms - int(ms)))
            for version, size, ms in zip(versions, flat[::2], accepted, strict=True)
            if ms is not None
        ]
        return sorted(found, key=lambda backlog: -backlog.next_waited_ms)

    async def memory(self) -> RedisMemory:
        """Return Redis' memory use, with an estimate for each kind of key."""
        info = await self._redis.info("memory")
        by_kind = await self._bytes_by_kind()
        return RedisMemory(int(info["used_memory"]), int(info["maxmemory"]), by_kind)

    async def num_strays(self) -> int | None:
        """Return the number of strays that the running audit found, or None if it doesn't run."""
        raw = await self._redis.hget(self._keys.audit, "num_strays")  # type: ignore[misc]
        return int(raw) if raw is not None else None

    async def _ready(self) -> list[AdapterVersion]:
        """Return the versions with waiting jobs, including versions of paused adapters."""
        names = await self._redis.zunion([self._keys.ready, self._keys.held])
        return [AdapterVersion(raw.decode()) for raw in names]

    async def _bytes_by_kind(self) -> Mapping[str, int]:
        try:
            return await estimate_key_bytes(self._redis, self._keys)
        except ResponseError:  # some hosted services forbid MEMORY USAGE or RANDOMKEY
            return {}

    async def read_jobs(
        self, ids: Sequence[JobId], names: Sequence[str] = JOB_FIELDS
    ) -> list[JobView | None]:
        """Return jobs in the order of their `ids`. Each is None if it is unknown or has expired."""
        pipe = self._redis.pipeline(transaction=False)
        self._ask_for_jobs(pipe, ids, names)
        return await self._job_views(ids, await pipe.execute(), names)

    def _ask_for_jobs(self, pipe: Pipeline, ids: Iterable[JobId], names: Sequence[str]) -> None:
        """Add to `pipe` the commands whose replies `_job_views` reads."""
        pipe.time()
        pipe.hget(self._keys.counters, "lag")
        for job_id in ids:
            pipe.hmget(self._keys.job(job_id), list(names))

    async def _job_views(
        self, ids: Sequence[JobId], replies: Sequence[Any], names: Sequence[str]
    ) -> list[JobView | None]:
        """Return the views of jobs from the replies to the commands of `_ask_for_jobs`."""
        time, lag, *rows = replies
        pool_ms = unix_ms(time) - int(float(lag or 0))
        jobs = [dict(zip(names, row, strict=True)) for row in rows]
        pipe = self._redis.pipeline(transaction=False)
        for job_id, fields in zip(ids, jobs, strict=True):
            version = AdapterVersion((fields["version"] or b"").decode())
            pipe.zrank(self._keys.queue(version), job_id)
        ranks = await pipe.execute()
        return [
            job_view(job_id, fields, rank, pool_ms)
            for job_id, fields, rank in zip(ids, jobs, ranks, strict=True)
        ]


_FINAL = tuple(state for state in JobState if state not in UNFINISHED)
