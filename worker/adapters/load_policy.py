"""How many adapters a worker loads at a time. Policy only."""

MAX_LOADING = 2
"""Maximum number of adapters that load at the same time.

In addition, up to as many may wait for device memory. Higher limits would only delay each load.
"""
REFUSED_S = 30.0
"""Time for which jobs of a version that couldn't be loaded are left to other workers."""


def max_cold(*, num_loading: int, num_waiting: int) -> int:
    """Return how many further versions may be loaded.

    Args:
        num_loading: number of versions that are being loaded for claimed jobs.
        num_waiting: how many of these versions wait for device memory.
    """
    if num_waiting >= MAX_LOADING:
        return 0
    return max(0, MAX_LOADING - (num_loading - num_waiting))


def can_prefetch(*, num_loading: int, num_waiting: int, num_prefetching: int) -> bool:
    """Return whether a version may be loaded for jobs that aren't claimed yet."""
    return not num_prefetching and not num_waiting and num_loading < MAX_LOADING
