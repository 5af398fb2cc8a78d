"""Limits the time that the fetch of one adapter takes, and its received and unpacked bytes."""

from shared.errors import AdapterRejected
from shared.guarded_fetch.budget import FetchBudget
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


class Budget(FetchBudget):
    """Counts the time and the bytes of one fetch. Other threads may read the progress."""

    def __init__(self, *, max_bytes: int, time_s: float) -> None:
        """Start the clock. `max_bytes` limits the received bytes, and also the unpacked bytes."""
        limit = f"--adapter-download-mb allows ({max_bytes // MIB} MiB)"
        super().__init__(max_bytes=max_bytes, time_s=time_s, limit=limit)
        self.phase = Phase.RECEIVING
        self._num_unpacked = 0

    def receive(self, num_bytes: int) -> None:
        """Count received bytes. Raises AdapterRejected if too many, or if the time is over."""
        super().receive(num_bytes)
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
