"""Checks that the CPU time of a check is linear in the size of its input, and bounded.

A check is measured at sizes that double up to a limit. Only CPU time counts, because the wall time
of a busy machine says nothing.
"""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

T = TypeVar("T")

MAX_CHECK_S = 0.5
"""CPU time in seconds that a check may take at its byte limit."""
MAX_GROWTH = 2.5
"""Factor by which the time of a check may grow when its input doubles."""
MIN_MEASURED_S = 0.05
"""CPU time in seconds from which on the growth is measured. Shorter times vary too much."""
ATTEMPTS = 5
ROUNDS = 3
"""Number of times that the best of these attempts must be too slow."""
NUM_SIZES = 11
"""Number of sizes. The smallest one is about a thousandth of the limit."""


class NotLinear(AssertionError):
    """A check takes too long, or its time grows too fast."""


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
        make: returns an input of about this number of bytes, and at most that. Inputs of two sizes
            are used in turn.
        max_bytes: the limit on an input's size.
        refusals: errors by which `check` refuses an input.
        max_s: maximum CPU time in seconds.

    Raises:
        NotLinear: an input took longer, or the time grew by more than `MAX_GROWTH` between two
            sizes of which one is twice the other, in all rounds. Each time is the best of up to
            `ATTEMPTS`.
    """

    def cpu_s(value: T) -> float:
        start_s = time.process_time()
        with suppress(refusals):
            check(value)
        return time.process_time() - start_s

    def fault(half: T, whole: T) -> str | None:
        """Return what is wrong with the best times, or None as soon as nothing is.

        Both are measured in turn, because the speed of a busy machine's cores changes.
        """
        half_s = whole_s = float("inf")
        for _ in range(ATTEMPTS):
            half_s, whole_s = min(half_s, cpu_s(half)), min(whole_s, cpu_s(whole))
            grows = half_s >= MIN_MEASURED_S and whole_s > MAX_GROWTH * half_s
            if not grows and whole_s <= max_s:
                return None
        limit = f"half of them {half_s:.3f} s" if grows else f"more than {max_s} s"
        return f"{whole_s:.3f} s, {limit}"

    sizes = [max_bytes >> shift for shift in reversed(range(NUM_SIZES))]
    with _without_older_objects():
        half = make(sizes[0])
        for size in sizes[1:]:
            whole = make(size)
            # A busy machine's cores and caches may be slow for a second, but not each time.
            if all((found := fault(half, whole)) for _ in range(ROUNDS)):
                raise NotLinear(f"{size} bytes take {found}")
            half = whole


@contextmanager
def _without_older_objects() -> Iterator[None]:
    """Let the garbage collector look at objects of the block only.

    Those of pytest would make the time depend on what ran before.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
