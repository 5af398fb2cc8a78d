"""Counts how long jobs took to their first tokens."""

from bisect import bisect_left

from shared.protocol.workers import FIRST_TOKEN_BOUNDS_S


class FirstTokens:
    """Histogram of the times from the acceptance of jobs to their first tokens."""

    def __init__(self) -> None:
        self._counts = [0] * (len(FIRST_TOKEN_BOUNDS_S) + 1)

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of jobs in each bucket since the worker started."""
        return tuple(self._counts)

    def observe(self, seconds: float) -> None:
        """Count a job that took `seconds` to its first token."""
        self._counts[bisect_left(FIRST_TOKEN_BOUNDS_S, seconds)] += 1
