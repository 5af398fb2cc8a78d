"""Decides how many adapters a worker loads at a time. Policy only."""

MAX_LOADING = 2
"""Maximum number of versions that a worker loads for claimed jobs at the same time.

More loads at a time would only slow down each other. Loads that wait for device memory don't count
towards this limit. However, no further load begins while this many loads wait for device memory.
"""
REFUSED_S = 30.0
"""Seconds for which a worker leaves a version's jobs to other workers after a failed load."""


def max_cold(*, num_loading: int, num_waiting: int) -> int:
    """Return how many more versions may begin to load for claimed jobs.

    `num_loading` versions load for such jobs, and `num_waiting` of them wait for device memory.
    """
    if num_waiting >= MAX_LOADING:
        return 0
    return max(0, MAX_LOADING - (num_loading - num_waiting))


def can_prefetch(*, num_loading: int, num_waiting: int, num_prefetching: int) -> bool:
    """Return whether a version may be loaded for jobs that aren't claimed yet."""
    return not num_prefetching and not num_waiting and num_loading < MAX_LOADING
