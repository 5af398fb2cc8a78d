"""Limits the time and the received bytes of one fetch."""

import time

from shared.errors import AdapterRejected

_LEAST_S = 0.05
"""Minimum remaining seconds. If fewer remain, the time counts as over, because reads with a timeout
end a bit early."""


class FetchBudget:
    """Counts the time and the bytes of one fetch. Other threads may read the progress."""

    def __init__(self, *, max_bytes: int, time_s: float, limit: str) -> None:
        """Start the clock.

        `limit` is the text that describes `max_bytes` in error messages, such as "--max-mb allows
        (5 MiB)".
        """
        self._max_bytes = max_bytes
        self._time_s = time_s
        self._limit = limit
        self._end_s = time.monotonic() + time_s
        self.num_bytes = 0
        """Number of received bytes."""
        self.total: int | None = None
        """Number of bytes that the source has announced; None if it hasn't."""

    def left_s(self) -> float:
        """Return the remaining seconds. Raises `AdapterRejected` if no time is left."""
        left_s = self._end_s - time.monotonic()
        if left_s <= _LEAST_S:
            raise AdapterRejected(f"fetching it took longer than {self._time_s:g} s")
        return left_s

    def expect(self, total: int) -> None:
        """Record the announced number of bytes. Raises `AdapterRejected` if it is too large."""
        self.total = total
        if total > self._max_bytes:
            raise self._too_large(f"has {total} bytes, more")

    def receive(self, num_bytes: int) -> None:
        """Count received bytes. Raises `AdapterRejected` after too many bytes or too much time."""
        self.num_bytes += num_bytes
        if self.num_bytes > self._max_bytes:
            raise self._too_large("has more bytes")
        self.left_s()

    def _too_large(self, what: str) -> AdapterRejected:
        return AdapterRejected(f"it {what} than {self._limit}")
