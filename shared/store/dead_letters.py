"""Jobs that ended without an answer and are kept so that operators can enqueue them again."""

from dataclasses import dataclass
from typing import Any

import orjson

from shared.protocol.codec import decode_job
from shared.protocol.ids import AdapterVersion, JobId, WorkerId
from shared.protocol.jobs import Job
from shared.store.connection import Redis
from shared.store.keys import Keys

PAGE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A job that ended because it killed its workers repeatedly."""

    id: JobId
    version: AdapterVersion
    tenant: str
    tries: int
    worker: WorkerId
    """Last worker that the job killed."""
    reason: str
    died_ms: int
    """Unix time in milliseconds at which the job ended."""


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A job that ended without an answer and can be enqueued again."""

    job: Job
    is_dead: bool
    """Whether the job is a dead letter. If False, a server error ended the job."""


class DeadLetters:
    """Reads and deletes a pool's dead letters and the stored requests of its failed jobs."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def dead(self, limit: int) -> list[DeadLetter]:
        """Return up to `limit` dead letters, newest first."""
        entries = await self._redis.xrevrange(self._keys.dead, count=limit)
        return [_letter(entry, fields) for entry, fields in entries]

    async def find(self, job_id: JobId) -> Unanswered | None:
        """Return a job as it was accepted, or None if the job can't be enqueued again.

        Dead letters and jobs that failed with a server error can be enqueued again, unless their
        requests were too large to be kept.

        Raises:
            ProtocolMismatch: the job has a protocol version that this release can't read.
        """
        entry, body = await self._find_dead(job_id)
        if entry is None:
            key = self._keys.job(job_id)
            state, kept = await self._redis.hmget(key, ["state", "body"])  # type: ignore[misc]
            body = kept if state == b"failed" else None
        return Unanswered(decode_job(body), is_dead=entry is not None) if body else None

    async def discard(self, job_id: JobId) -> None:
        """Delete a dead letter, or the stored request of a failed job."""
        entry, _ = await self._find_dead(job_id)
        if entry is not None:
            await self._redis.xdel(self._keys.dead, entry)
        else:
            await self._redis.hdel(self._keys.job(job_id), "body")  # type: ignore[misc]

    async def _find_dead(self, job_id: JobId) -> tuple[bytes | None, bytes | None]:
        """Return two values: the stream id of a job's dead letter, and the job's body.

        Both values are None if the job has no dead letter.
        """
        end = b"+"
        while True:
            page = await self._redis.xrevrange(self._keys.dead, end, count=PAGE)
            for entry, fields in page:
                if fields[b"id"] == job_id.encode():
                    return entry, fields[b"body"]
            if len(page) < PAGE:
                return None, None
            end = b"(" + page[-1][0]


def _letter(entry: bytes, fields: dict[bytes, Any]) -> DeadLetter:
    return DeadLetter(
        id=JobId(fields[b"id"].decode()),
        version=AdapterVersion(fields[b"version"].decode()),
        tenant=fields[b"tenant"].decode(),
        tries=int(fields[b"try"]),
        worker=WorkerId(fields[b"worker"].decode()),
        reason=orjson.loads(fields[b"error"])["message"],
        died_ms=int(entry.partition(b"-")[0]),
    )
