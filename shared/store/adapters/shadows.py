"""Shadow pairs (a request's job and its copy for the shadow), and comparisons of their answers."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import orjson

from shared.protocol.ids import AdapterVersion, JobId
from shared.protocol.jobs import JobState
from shared.store.redis.connection import decode_hash, unix_ms
from shared.store.redis.pool_store import PoolStore

States = tuple[JobState | None, JobState | None]
"""States of the two jobs of a pair. A state is None if Redis no longer has the job."""
MAX_PENDING = 1024
"""Maximum number of pairs that wait for their comparison. While so many wait, no further copies of
jobs are made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowPair:
    """A job, and its copy that the candidate version computes."""

    original: JobId
    copy: JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class PairReport:
    """Comparison of the two answers of a pair."""

    original: JobId
    copy: JobId
    similarity: float
    """Similarity of the two answers, from 0 (no common words, or a failed copy) to 1 (equal
    answers)."""
    error: str | None = None
    """Reason why the copy failed."""
    tokens: int = 0
    """Number of tokens of the original answer."""
    candidate_tokens: int = 0
    """Number of tokens of the candidate's answer."""

    @property
    def is_equal(self) -> bool:
        """Whether both answers have the same text."""
        return self.similarity == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Summary of a candidate's compared pairs. Redis keeps it as a hash of its fields."""

    pairs: int = 0
    equal: int = 0
    """Number of pairs with equal texts."""
    failed: int = 0
    """Number of copies that ended with an error."""
    similarity: float = 0.0
    """Sum of the similarities of all pairs."""
    tokens: int = 0
    candidate_tokens: int = 0


class Shadows(PoolStore):
    """Shadow pairs of one pool."""

    async def num_pending(self) -> int:
        """Return the number of pairs that haven't been compared."""
        return int(await self._redis.zcard(self._keys.shadows))

    async def add(self, pair: ShadowPair) -> None:
        """Store a pair for a later comparison of its answers."""
        now_ms = unix_ms(await self._redis.time())
        await self._redis.zadd(self._keys.shadows, {f"{pair.original} {pair.copy}": now_ms})

    async def pending(self) -> Sequence[tuple[ShadowPair, States]]:
        """Return the pairs that wait for their comparison, oldest first, with the jobs' states."""
        raw = await self._redis.zrange(self._keys.shadows, 0, -1)
        jobs = [JobId(job) for member in raw for job in member.decode().split(" ")]
        pipe = self._redis.pipeline(transaction=False)
        for job in jobs:
            pipe.hget(self._keys.job(job), "state")
        states = [JobState(state.decode()) if state else None for state in await pipe.execute()]
        rows = zip(jobs[::2], jobs[1::2], states[::2], states[1::2], strict=True)
        return [
            (ShadowPair(original=original, copy=copy), (state, state_of_copy))
            for original, copy, state, state_of_copy in rows
        ]

    async def discard(self, pairs: Sequence[ShadowPair]) -> None:
        """Remove pairs that can't be compared."""
        members = [f"{pair.original} {pair.copy}" for pair in pairs]
        if members:
            await self._redis.zrem(self._keys.shadows, *members)

    async def record(self, name: str, version: AdapterVersion, report: PairReport) -> bool:
        """Add a pair to the summary.

        Returns False if the pair was added before, or the trial of the candidate has ended.
        """
        args = (
            *(report.original, report.copy, name, version),
            *(int(report.is_equal), int(report.error is not None), f"{report.similarity:.6f}"),
            *(report.tokens, report.candidate_tokens, orjson.dumps(asdict(report))),
        )
        return bool(await self._scripts.run("record_comparison", *args))

    async def comparison(self, version: AdapterVersion) -> Comparison:
        """Return the summary of a candidate's pairs so far."""
        raw = await self._redis.hgetall(self._keys.compared(version))  # type: ignore[misc]
        found = decode_hash(raw)
        similarity = float(found.pop("similarity", 0))
        counts = {name: int(value) for name, value in found.items()}
        return Comparison(similarity=similarity, **counts)

    async def differing(self, version: AdapterVersion, limit: int) -> Sequence[PairReport]:
        """Return up to `limit` pairs of a candidate with different answers, newest first."""
        raw = await self._redis.lrange(self._keys.differing(version), 0, limit - 1)  # type: ignore[misc]
        return [PairReport(**orjson.loads(report)) for report in raw]
