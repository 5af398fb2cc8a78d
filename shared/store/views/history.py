"""Samples of a pool's totals over the last minutes. Sweeps add one about every second."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from shared.protocol.workers import FIRST_TOKEN_BOUNDS_S
from shared.store.redis.pool_store import PoolStore

MAX_SAMPLES = 300
"""Maximum number of samples of each history that Redis keeps, as in `reap.lua`."""
NUM_BUCKETS = len(FIRST_TOKEN_BOUNDS_S) + 1
LONG_STEPS_MS = 12_000, 288_000
"""Milliseconds between two samples of the histories of an hour and of a day, as in `reap.lua`."""
MAX_BYTES = 384 * 1024
"""Maximum memory of all histories of a pool in Redis, in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Totals of a pool at one moment."""

    time_ms: int
    """Unix time in milliseconds."""
    waiting: int
    running: int
    done: int
    """Number of jobs that have been answered."""
    tokens: int
    """Number of output tokens of all workers."""
    first_tokens: tuple[int, ...]
    """Number of jobs by bucket of the time to the first token (`FIRST_TOKEN_BOUNDS_S`)."""
    failed: int = 0
    """Number of failed, dead and expired jobs whose requests weren't at fault."""


class HistoryView(PoolStore):
    """Reads the history of one pool."""

    async def newest(self, limit: int, *, step_ms: int | None = None) -> list[Sample]:
        """Return up to `limit` of the newest samples, oldest first.

        `step_ms` is one of `LONG_STEPS_MS` and selects that history. None selects the history of
        the last minutes. If Redis' clock was set back, samples from before that are left out.
        """
        key = self._keys.history if step_ms is None else self._keys.long_history(step_ms)
        lines = await self._redis.lrange(key, 0, limit - 1)  # type: ignore[misc]
        newest_first = [_sample([int(number) for number in line.split()]) for line in lines]
        pairs = pairwise(newest_first)
        backward = (at for at, (new, old) in enumerate(pairs, 1) if new.time_ms < old.time_ms)
        return newest_first[: next(backward, limit)][::-1]


def _sample(numbers: Sequence[int]) -> Sample:
    time_ms, waiting, unfinished, done, tokens, *rest = numbers
    first_tokens, (failed, *_) = rest[:NUM_BUCKETS], [*rest[NUM_BUCKETS:], 0]
    return Sample(
        time_ms=time_ms,
        waiting=waiting,
        running=max(0, unfinished - waiting),
        done=done,
        tokens=tokens,
        first_tokens=tuple(first_tokens),
        failed=failed,
    )
