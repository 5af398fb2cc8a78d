"""Samples of a pool's totals over the last minutes. Sweeps add one about every second."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from shared.store.redis.pool_store import PoolStore

MAX_SAMPLES = 300
"""Maximum number of samples that Redis keeps, as in `reap.lua`."""


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


class HistoryView(PoolStore):
    """Reads the history of one pool."""

    async def newest(self, limit: int) -> list[Sample]:
        """Return up to `limit` of the newest samples, oldest first.

        Samples from before Redis' clock was set back are left out.
        """
        lines = await self._redis.lrange(self._keys.history, 0, limit - 1)  # type: ignore[misc]
        newest_first = [_sample([int(number) for number in line.split()]) for line in lines]
        pairs = pairwise(newest_first)
        backward = (at for at, (new, old) in enumerate(pairs, 1) if new.time_ms < old.time_ms)
        return newest_first[: next(backward, limit)][::-1]


def _sample(numbers: Sequence[int]) -> Sample:
    time_ms, waiting, unfinished, done, tokens, *first_tokens = numbers
    return Sample(
        time_ms=time_ms,
        waiting=waiting,
        running=max(0, unfinished - waiting),
        done=done,
        tokens=tokens,
        first_tokens=tuple(first_tokens),
    )
