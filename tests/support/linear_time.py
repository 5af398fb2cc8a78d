"""Checks that the CPU time of a check is linear in the size of its input, and bounded.

A check is measured at sizes that double up to a limit. Only CPU time counts, because the wall time
of a busy machine says nothing.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

MAX_CHECK_S = 0.5
"""CPU time in seconds that a check may take at its byte limit."""
MAX_GROWTH = 2.5
"""Factor by which the time of a check may grow when its input doubles."""
MIN_MEASURED_S = 0.05
"""CPU time in seconds from which on the growth is measured. Shorter times vary too much."""
ATTEMPTS = 5
FIRST_SHIFT = 10
"""The smallest size is the limit divided by two to this power."""


class NotLinear(AssertionError):
    """A check takes too long, or its time grows too fast."""


def cpu_s(check: Callable[[T], object], value: T, *, refusals: type[Exception]) -> float:
    """Return the CPU seconds of one run. `refusals` are errors that a check may end with."""
    start_s = time.process_time()
    with suppress(refusals):
        check(value)
    return time.process_time() - start_s


def assert_linear(
    check: Callable[[T], object],
    make: Callable[[int], T],
    *,
    max_bytes: int,
    refusals: type[Exception],
    max_s: float = MAX_CHECK_S,
) -> None:
    """Check that the time of `check` is linear up to `max_bytes`, and at most `max_s` there.

    Args:
        check: what is measured. It gets an input and must not change it.
        make: returns an input of about this number of bytes, and at most that.
        max_bytes: the limit on an input's size.
        refusals: errors by which `check` refuses an input.
        max_s: maximum CPU time in seconds.

    Raises:
        NotLinear: an input took longer, or the time grew by more than `MAX_GROWTH` between two
            sizes of which one is twice the other. Each time is the best of `ATTEMPTS`.
    """
    before_s = 0.0
    for shift in range(FIRST_SHIFT, -1, -1):
        num_bytes = max_bytes >> shift
        taken_s = _best_s(check, make(num_bytes), refusals)
        if taken_s > max_s:
            raise NotLinear(f"{num_bytes} bytes take {taken_s:.3f} s, more than {max_s} s")
        if before_s >= MIN_MEASURED_S and taken_s > MAX_GROWTH * before_s:
            message = f"{num_bytes} bytes take {taken_s:.3f} s, half of them {before_s:.3f} s"
            raise NotLinear(message)
        before_s = taken_s


def _best_s(check: Callable[[T], object], value: T, refusals: type[Exception]) -> float:
    """Return the shortest time of up to `ATTEMPTS` runs.

    A run that is too short to be measured ends the attempts.
    """
    best_s = cpu_s(check, value, refusals=refusals)
    for _ in range(ATTEMPTS - 1):
        if best_s < MIN_MEASURED_S:
            break
        best_s = min(best_s, cpu_s(check, value, refusals=refusals))
    return best_s
