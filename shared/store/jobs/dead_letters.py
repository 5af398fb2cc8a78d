"""Jobs that ended without an answer, and are kept so that they can be enqueued again.

These are dead letters, and jobs that failed with a server error.
"""

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import orjson

from shared.protocol.codec import ONLY_IN_SPEC, decode_answer_spec, decode_job
from shared.protocol.ids import AdapterVersion, JobId, WorkerId
from shared.protocol.jobs import Job
from shared.store.redis.connection import ResponseError, unix_ms
from shared.store.redis.pool_store import PoolStore

T = TypeVar("T")
PAGE = 100
MAX_SUMMARIZED = 1000
"""Maximum number of dead letters in one summary."""
NUM_SAMPLES = 50
"""Number of parts of the stream of letters. Redis measures only these parts to estimate the size of
all letters."""
MAX_TRIMS = 20
"""Maximum number of deletions that one call of `trim` makes to meet its limit in bytes."""
REPORTED_TTL_S = 30 * 86400
"""Seconds after which `take_unreported` forgets which letters were reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A job that ended because it killed its workers repeatedly."""

    id: JobId
    version: AdapterVersion
    tenant: str
    tries: int
    worker: WorkerId
    """Last worker that the job killed."""
    code: str
    """Code of the job's error."""
    reason: str
    died_ms: int
    """Unix time in milliseconds at which the job ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterSummary:
    """Counts of some dead letters. Times are Unix times in milliseconds."""

    num_letters: int
    newest_ms: int
    oldest_ms: int
    by_version: Mapping[AdapterVersion, int]
    by_code: Mapping[str, int]
    by_worker: Mapping[WorkerId, int]

    @classmethod
    def of(cls, letters: Sequence[DeadLetter]) -> "DeadLetterSummary":
        """Summarize one or more letters. Each mapping has its largest counts first."""
        times = [letter.died_ms for letter in letters]
        return cls(
            num_letters=len(letters),
            newest_ms=max(times),
            oldest_ms=min(times),
            by_version=_counts([letter.version for letter in letters]),
            by_code=_counts([letter.code for letter in letters]),
            by_worker=_counts([letter.worker for letter in letters]),
        )


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A job that ended without an answer and can be enqueued again."""

    job: Job
    letter: str = ""
    """Id of the job's dead letter. Empty if a server error ended the job."""

    @property
    def is_dead(self) -> bool:
        """Whether the job killed its workers."""
        return bool(self.letter)


class DeadLetters(PoolStore):
    """Reads and deletes a pool's dead letters and the stored requests of its failed jobs."""

    async def dead(self, limit: int) -> list[DeadLetter]:
        """Return up to `limit` dead letters, newest first."""
        entries = await self._redis.xrevrange(self._keys.dead, count=limit)
        return [_letter(entry, fields) for entry, fields in entries]

    async def count(self) -> int:
        """Return the number of dead letters."""
        return int(await self._redis.xlen(self._keys.dead))

    async def take_unreported(self) -> DeadLetterSummary | None:
        """Return a summary of the letters that no earlier call has summarized, or None.

        The result is None if there are no such letters. The summary covers at most the
        `MAX_SUMMARIZED` newest of these letters. A letter may be summarized twice if several
        processes call this method at the same time.
        """
        reported = await self._redis.getex(self._keys.reported, ex=REPORTED_TTL_S)
        start = b"(" + reported if reported else b"-"
        entries = []
        async for each in self._newest_first(start):
            entries.append(each)
            if len(entries) == MAX_SUMMARIZED:
                break
        if not entries:
            return None
        await self._redis.set(self._keys.reported, entries[0][0], ex=REPORTED_TTL_S)
        return DeadLetterSummary.of([_letter(*entry) for entry in entries])

    async def trim(self, *, max_age_ms: int, max_bytes: int) -> int:
        """Delete the letters that exceed the limits on age and on total bytes.

        Letters older than `max_age_ms` are deleted first, and then the oldest ones until the rest
        fit into `max_bytes`. Returns the number of deleted letters. Redis estimates the bytes of
        the letters. If the server forbids this, only the age is limited.
        """
        oldest_ms = max(0, unix_ms(await self._redis.time()) - max_age_ms)
        deleted = await self._redis.xtrim(self._keys.dead, minid=oldest_ms, approximate=False)
        for _ in range(MAX_TRIMS):
            num_bytes = await self._bytes()
            if num_bytes <= max_bytes:
                break
            fitting = await self.count() * max_bytes // num_bytes
            deleted += await self._redis.xtrim(self._keys.dead, maxlen=fitting, approximate=False)
        return int(deleted)

    async def _bytes(self) -> int:
        try:
            return await self._redis.memory_usage(self._keys.dead, samples=NUM_SAMPLES) or 0
        except ResponseError:  # some hosted services forbid MEMORY USAGE
            return 0

    async def find(self, job_id: JobId) -> Unanswered | None:
        """Return a job as it was accepted, or None if the job can't be enqueued again.

        Dead letters and jobs that failed with a server error can be enqueued again, unless their
        requests were too large to be kept.

        Raises:
            ProtocolMismatch: the job has a protocol version that this release can't read.
        """
        entry, body = await self._find(job_id)
        if not body:
            return None
        return Unanswered(await self._complete(decode_job(body)), (entry or b"").decode())

    async def _complete(self, job: Job) -> Job:
        """Return the job. If its record still exists, add the fields that only the record has."""
        key = self._keys.job(job.id)
        raw, request = await self._redis.hmget(key, ["spec", "request"])  # type: ignore[misc]
        if raw is None:
            return job
        spec = decode_answer_spec(raw, job.id, request=request)
        return replace(job, **{name: getattr(spec, name) for name in ONLY_IN_SPEC})

    async def _find(self, job_id: JobId) -> tuple[bytes | None, bytes | None]:
        """Return the stream id of a job's dead letter, and the job's body. Each may be None."""
        fields = ["state", "letter", "body"]
        state, letter, body = await self._redis.hmget(self._keys.job(job_id), fields)  # type: ignore[misc]
        if state == b"failed":
            return None, body
        if state is None and letter is None:
            record = orjson.loads(await self._redis.get(self._keys.record(job_id)) or b"{}")
            letter = record["letter"].encode() if "letter" in record else None
        if letter is not None:
            found = await self._redis.xrange(self._keys.dead, letter, letter)
            return (letter, found[0][1][b"body"]) if found else (None, None)
        return await self._search(job_id) if state is None else (None, None)

    async def _search(self, job_id: JobId) -> tuple[bytes | None, bytes | None]:
        """Look for the letter of a job whose record has expired. Reads all letters if needed."""
        async for entry, fields in self._newest_first(b"-"):
            if fields[b"id"] == job_id.encode():
                return entry, fields[b"body"]
        return None, None

    async def _newest_first(self, start: bytes) -> AsyncIterator[tuple[bytes, dict[bytes, Any]]]:
        """Yield the ids and fields of the letters, newest first.

        `start` is the oldest position, in the form of an argument of XREVRANGE.
        """
        end = b"+"
        while True:
            page = await self._redis.xrevrange(self._keys.dead, end, start, count=PAGE)
            for entry, fields in page:
                yield entry, fields
            if len(page) < PAGE:
                break
            end = b"(" + page[-1][0]


def _counts(items: Sequence[T]) -> dict[T, int]:
    return dict(Counter(items).most_common())


def _letter(entry: bytes, fields: dict[bytes, Any]) -> DeadLetter:
    error = orjson.loads(fields[b"error"])
    return DeadLetter(
        id=JobId(fields[b"id"].decode()),
        version=AdapterVersion(fields[b"version"].decode()),
        tenant=fields[b"tenant"].decode(),
        tries=int(fields[b"try"]),
        worker=WorkerId(fields[b"worker"].decode()),
        code=error["code"],
        reason=error["message"],
        died_ms=int(entry.partition(b"-")[0]),
    )
