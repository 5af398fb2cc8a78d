"""How many adapters were loaded, how long that takes, and how long jobs wait because of it."""

MIN_STEAL_MS = 250.0
STEAL_PER_LOAD = 1.5
LOAD_MS_SHARE = 0.25
"""Weight of the newest load in the mean load time."""


class LoadTimes:
    """Counts since the worker's start."""

    def __init__(self) -> None:
        self.num_reads = 0
        """Loads that began at the adapter's files."""
        self.num_loads = 0
        self.num_evictions = 0
        self.total_s = 0.0
        """Seconds that the loads took, whatever tier they began at; not waiting for memory."""
        self._mean_ms = 0.0

    @property
    def load_ms(self) -> int:
        """How long a load takes here once there is memory, as far as is known."""
        return int(self._mean_ms)

    @property
    def steal_ms(self) -> int:
        """How long a job waits for the workers that hold its adapter before others load it."""
        return int(max(MIN_STEAL_MS, STEAL_PER_LOAD * self._mean_ms))

    def took(self, seconds: float) -> None:
        """Note how long a load took."""
        self.total_s += seconds
        share = LOAD_MS_SHARE if self._mean_ms else 1.0
        self._mean_ms += (1000 * seconds - self._mean_ms) * share
