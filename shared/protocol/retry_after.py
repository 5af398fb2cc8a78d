"""Decides when a client should repeat a request that a full queue refused. Policy only."""

import math

RETRY_SHARE = 0.1
"""Share of the waiting jobs that must be served before a refused client should try again."""
MIN_RETRY_AFTER_S, MAX_RETRY_AFTER_S = 1, 60


def retry_after_full_s(num_waiting: int, rate: float) -> int:
    """Return the seconds that a pool takes to serve `RETRY_SHARE` of the waiting jobs.

    The pool answers `rate` jobs per second. The result is a whole number from 1 to 60.
    """
    if rate <= 0:
        return MIN_RETRY_AFTER_S
    seconds = math.ceil(num_waiting * RETRY_SHARE / rate)
    return min(max(MIN_RETRY_AFTER_S, seconds), MAX_RETRY_AFTER_S)
