"""Limits the time, the received bytes and the unpacked bytes of the fetch of one adapter."""

import time

from shared.errors import AdapterRejected
from shared.store.adapters.fetch_progress import Phase
from worker.lora.throttle import pause

MIB = 1 << 20
CHUNK_BYTES = MIB
"""Largest number of bytes that are read at once."""
MAX_RATIO = 200
"""Largest size of an unpacked archive, as a multiple of the archive's size."""
UNRATED_BYTES = 16 * MIB
"""Number of unpacked bytes up to which any ratio is allowed, because short runs of zeros compress
well."""
_LEAST_S = 0.05
"""A shorter remaining time is treated as none, because a read may end a little before its limit."""


class Budget:
    """Counts the time and the bytes of one fetch. Other threads may read the progress."""

    def __init__(self, *, max_bytes: int, time_s: float) -> None:
        """Start the clock. `max_bytes` limits the received bytes, and also the unpacked bytes."""
        self._max_bytes = max_bytes
        self._time_s = time_s
        self._end_s = time.monotonic() + time_s
        self.phase = Phase.RECEIVING
        self.num_bytes = 0
        """Number of received bytes."""
        self.total: int | None = None
        """Number of bytes that the source has announced; None if it hasn't."""
        self._num_unpacked = 0

    def left_s(self) -> float:
        """Return the seconds that are left. Raises AdapterRejected if there are none."""
        left_s = self._end_s - time.monotonic()
        if left_s <= _LEAST_S:
            raise AdapterRejected(f"fetching it took longer than {self._time_s:g} s")
        return left_s

    def expect(self, total: int) -> None:
        """Record how many bytes the source announces. Raises AdapterRejected if too many."""
        self.total = total
        if total > self._max_bytes:
            raise self._too_large(f"has {total} bytes, more")

    def receive(self, num_bytes: int) -> None:
        """Count received bytes. Raises AdapterRejected if too many, or if the time is over."""
        self.num_bytes += num_bytes
        if self.num_bytes > self._max_bytes:
            raise self._too_large("has more bytes")
        self.left_s()
        pause()

    def unpack(self, num_bytes: int) -> None:
        """Count unpacked bytes. Raises AdapterRejected if too many, or if the time is over."""
        self._num_unpacked += num_bytes
        if self._num_unpacked > self._max_bytes:
            raise self._too_large("unpacks to more bytes")
        if self._num_unpacked > max(UNRATED_BYTES, MAX_RATIO * self.num_bytes):
            raise AdapterRejected(f"the archive unpacks to over {MAX_RATIO} times its size")
        self.left_s()
        pause()

    def _too_large(self, what: str) -> AdapterRejected:
        max_mb = self._max_bytes // MIB
        return AdapterRejected(f"it {what} than --adapter-download-mb allows ({max_mb} MiB)")
