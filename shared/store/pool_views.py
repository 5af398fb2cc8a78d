"""Read-only views of a pool's jobs, workers and counts. They use only short commands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from shared.errors import JobError
from shared.protocol.codec import decode_job_error, decode_result, decode_worker_info
from shared.protocol.ids import AdapterVersion, JobId, WorkerId
from shared.protocol.jobs import JobState
from shared.protocol.results import Result, Usage
from shared.protocol.workers import WorkerInfo
from shared.store.connection import Redis, ResponseError
from shared.store.key_memory import estimate_key_bytes
from shared.store.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """The data of a job that its tenant may see. Times are Unix times in milliseconds."""

    id: JobId
    state: JobState
    model: str
    version: AdapterVersion
    tenant: str
    enqueued_ms: int
    started_ms: int | None
    """Time of the last claim; None if the job was never claimed."""
    ended_ms: int | None
    position: int | None
    """Position in the queue of the job's version, from 1; None if the job isn't waiting."""
    try_: int
    worker: WorkerId | None
    error: JobError | None
    usage: Usage | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """A worker that is in the pool."""

    id: WorkerId
    lease_left_ms: int
    """Milliseconds until the lease ends. Negative if the worker is about to be declared dead."""
    info: WorkerInfo
    residents: tuple[AdapterVersion, ...]
    """Versions that the worker holds, sorted."""
    running: int
    """Number of jobs that the worker owns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueCounts:
    """Counts of the pool's jobs and workers."""

    waiting: int
    """Number of waiting jobs."""
    totals: Mapping[JobState, int]
    """Number of jobs that have ended, by final state."""
    waiting_by_version: Mapping[AdapterVersion, int]
    """Number of waiting jobs, by version."""
    retried: int
    """Number of times that a job was requeued because its worker died."""
    released: int
    """Number of times that a live worker released a job."""
    workers_lost: int
    """Number of workers that were declared dead."""


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
    """Bytes that Redis uses in total, including the data of other pools and applications."""
    limit: int
    """Redis' `maxmemory` setting, in bytes; 0 means no limit."""
    by_kind: Mapping[str, int] = field(default_factory=dict)
    """Estimated bytes of the pool's keys, by kind. The kind is the word after the pool's prefix."""


class PoolViews:
    """Reads the state of one pool."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def job(self, job_id: JobId) -> JobView | None:
        """Return a job, or None if the job is unknown or its record has expired."""
        values = await self._redis.hmget(self._keys.job(job_id), _JOB_FIELDS)  # type: ignore[misc]
        fields = dict(zip(_JOB_FIELDS, values, strict=True))
        if fields["state"] is None:
            return None
        rank = None
        if fields["state"] == b"queued":
            queue = self._keys.queue(AdapterVersion(fields["version"].decode()))
            rank = await self._redis.zrank(queue, job_id)
        return _job_view(job_id, fields, rank)

    async def result(self, job_id: JobId) -> Result | None:
        """Return the result of a job, or None if the job hasn't ended or its result has expired."""
        raw = await self._redis.get(self._keys.result(job_id))
        return decode_result(raw) if raw is not None else None

    async def workers(self) -> list[WorkerView]:
        """Return every worker that is in the pool, sorted by id."""
        seconds, micros = await self._redis.time()
        leases = await self._redis.zrange(self._keys.workers, 0, -1, withscores=True)
        ids = [WorkerId(raw.decode()) for raw, _ in leases]
        replies = await self._read_workers(ids)
        now_ms = seconds * 1000 + micros // 1000
        views = [
            WorkerView(
                id=wid,
                lease_left_ms=int(lease) - now_ms,
                info=decode_worker_info(info),
                residents=tuple(AdapterVersion(v) for v in sorted(r.decode() for r in residents)),
                running=running,
            )
            for wid, (_, lease), (info, residents, running) in zip(
                ids, leases, replies, strict=True
            )
            if info is not None
        ]
        return sorted(views, key=lambda view: view.id)

    async def counts(self) -> QueueCounts:
        """Return the numbers of waiting jobs, ended jobs and lost workers."""
        counters = await self._redis.hgetall(self._keys.counters)  # type: ignore[misc]
        names = await self._redis.zrange(self._keys.ready, 0, -1)
        versions = [AdapterVersion(raw.decode()) for raw in names]
        pipe = self._redis.pipeline(transaction=False)
        for version in versions:
            pipe.zcard(self._keys.queue(version))
        sizes = await pipe.execute()
        return QueueCounts(
            waiting=int(counters.get(b"waiting", 0)),
            totals={state: int(counters.get(state.encode(), 0)) for state in _FINAL},
            waiting_by_version={v: n for v, n in zip(versions, sizes, strict=True) if n},
            retried=int(counters.get(b"retried", 0)),
            released=int(counters.get(b"released", 0)),
            workers_lost=int(counters.get(b"workers_lost", 0)),
        )

    async def backlogs(self) -> list[Backlog]:
        """Return the backlogs of all versions, sorted by `next_waited_ms`, longest wait first."""
        seconds, micros = await self._redis.time()
        versions = [
            AdapterVersion(raw.decode())
            for raw in await self._redis.zrange(self._keys.ready, 0, -1)
        ]
        pipe = self._redis.pipeline(transaction=False)
        for version in versions:
            pipe.zcard(self._keys.queue(version))
            pipe.zrange(self._keys.queue(version), 0, 0)
        flat = await pipe.execute()
        for head in flat[1::2]:
            pipe.hget(self._keys.job(JobId(head[0].decode() if head else "")), "enq")
        accepted = await pipe.execute()
        now_ms = seconds * 1000 + micros // 1000
        found = [
            Backlog(version=version, waiting=size, next_waited_ms=max(0, now_ms - int(ms)))
            for version, size, ms in zip(versions, flat[::2], accepted, strict=True)
            if ms is not None
        ]
        return sorted(found, key=lambda backlog: -backlog.next_waited_ms)

    async def memory(self) -> RedisMemory:
        """Return Redis' memory use. The size of each kind of key is estimated from a sample."""
        info = await self._redis.info("memory")
        by_kind = await self._bytes_by_kind()
        return RedisMemory(int(info["used_memory"]), int(info["maxmemory"]), by_kind)

    async def _bytes_by_kind(self) -> Mapping[str, int]:
        try:
            return await estimate_key_bytes(self._redis, self._keys)
        except ResponseError:  # some hosted services forbid MEMORY USAGE or RANDOMKEY
            return {}

    async def _read_workers(self, ids: Sequence[WorkerId]) -> list[tuple[Any, Any, int]]:
        pipe = self._redis.pipeline(transaction=False)
        for wid in ids:
            pipe.hget(self._keys.worker(wid), "info")
            pipe.smembers(self._keys.residents(wid))
            pipe.zcard(self._keys.owned(wid))
        flat = await pipe.execute()
        return list(zip(flat[::3], flat[1::3], flat[2::3], strict=True))


_FINAL = tuple(s for s in JobState if s not in {JobState.QUEUED, JobState.RUNNING})
_JOB_FIELDS = [
    *("state", "model", "version", "tenant", "enq", "claim", "end"),
    *("try", "owner", "error", "usage"),
]


def _job_view(job_id: JobId, fields: dict[str, Any], rank: int | None) -> JobView:
    error, usage = (orjson.loads(fields[name] or b"null") for name in ("error", "usage"))
    return JobView(
        id=job_id,
        state=JobState(fields["state"].decode()),
        model=fields["model"].decode(),
        version=AdapterVersion(fields["version"].decode()),
        tenant=fields["tenant"].decode(),
        enqueued_ms=int(fields["enq"]),
        started_ms=_int(fields["claim"]),
        ended_ms=_int(fields["end"]),
        position=rank + 1 if rank is not None else None,
        try_=int(fields["try"]),
        worker=WorkerId(fields["owner"].decode()) if fields["owner"] else None,
        error=decode_job_error(error),
        usage=Usage(**usage) if usage else None,
    )


def _int(raw: bytes | None) -> int | None:
    return int(raw) if raw is not None else None
