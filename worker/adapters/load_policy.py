"""How many adapters a worker loads at a time. Policy only."""

MAX_LOADING = 2
"""Most adapters loaded at a time, and most that wait for device memory besides: more would only
delay each of them."""
REFUSED_S = 30.0
"""How long a version that couldn't be loaded is left to workers that hold it."""


def max_cold(*, num_loading: int, num_waiting: int) -> int:
    """Return how many further versions may be loaded.

    Args:
        num_loading: versions that are loaded for claimed jobs.
        num_waiting: those among them that wait for device memory.
    """
    if num_waiting >= MAX_LOADING:
        return 0
    return max(0, MAX_LOADING - (num_loading - num_waiting))


def can_prefetch(*, num_loading: int, num_waiting: int, num_prefetching: int) -> bool:
    """Return whether a version may be loaded for jobs that aren't claimed yet."""
    return not num_prefetching and not num_waiting and num_loading < MAX_LOADING
