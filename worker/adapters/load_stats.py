"""Counters of adapter loads and evictions in this worker, and load times. Pure."""

MIN_STEAL_MS = 250.0
STEAL_PER_LOAD = 1.5
LOAD_MS_SHARE = 0.25
"""Weight of the newest load in `LoadStats.load_ms`, an exponential moving average."""


class LoadStats:
    """Counters and load times since the worker's start."""

    def __init__(self) -> None:
        self.num_reads = 0
        """Number of loads that read the adapter's files."""
        self.num_loads = 0
        """Number of times that a version became resident."""
        self.num_evictions = 0
        """Number of times that a resident version was evicted."""
        self.num_replicas_added = 0
        """Number of loads of versions that another worker already held."""
        self.num_replicas_given_up = 0
        """Number of replicas that this worker has given up."""
        self.total_s = 0.0
        """Total seconds spent on loads, excluding waits for memory."""
        self._mean_ms = 0.0

    @property
    def load_ms(self) -> int:
        """Mean duration of recent loads in ms, without waits for device memory. 0 at first."""
        return int(self._mean_ms)

    @property
    def steal_ms(self) -> int:
        """Time in ms for which a job is reserved for workers that hold its adapter."""
        return int(max(MIN_STEAL_MS, STEAL_PER_LOAD * self._mean_ms))

    @property
    def totals(self) -> dict[str, int]:
        """Totals since the worker's start, under the names that `pool_metrics.py` reads."""
        return {
            "reads": self.num_reads,
            "loads": self.num_loads,
            "load_ms": int(1000 * self.total_s),
            "evictions": self.num_evictions,
            "spreads": self.num_replicas_added,
            "shrinks": self.num_replicas_given_up,
        }

    def record_load(self, seconds: float) -> None:
        """Record the duration of a load."""
        self.total_s += seconds
        share = LOAD_MS_SHARE if self._mean_ms else 1.0
        self._mean_ms += (1000 * seconds - self._mean_ms) * share
