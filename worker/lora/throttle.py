"""Limits how much interpreter time background threads take from the engine.

The engine needs the interpreter thousands of times per step. A background thread that runs many
small operations holds the interpreter between these operations. This makes the engine several times
slower, whatever the thread's priority. Code in such a thread therefore calls `pause` between
operations.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

SLICE_S = 0.0005
"""CPU time in seconds that a thread may use between two pauses."""
CHUNK_ELEMENTS = 1 << 18
"""Largest number of elements that one operation should process between two pauses."""


@dataclass(slots=True)
class _Throttle:
    share: Callable[[], float]
    thread_time_s: float
    """CPU time of the thread at the end of its last pause."""


_local = threading.local()


def throttle_thread(share: Callable[[], float]) -> None:
    """Limit the calling thread to the fraction `share()` of one core's time.

    The limit is enforced when the thread calls `pause`.
    """
    _local.throttle = _Throttle(share, time.thread_time())


def pause() -> None:
    """Sleep if the calling thread is throttled and has used up its slice of CPU time."""
    throttle: _Throttle | None = getattr(_local, "throttle", None)
    if throttle is None:
        return
    worked_s = time.thread_time() - throttle.thread_time_s
    if worked_s < SLICE_S:
        return
    if (share := throttle.share()) < 1:
        time.sleep(worked_s * (1 / share - 1))
    throttle.thread_time_s = time.thread_time()
