"""Limits how much interpreter time a thread takes from the engine.

The engine needs the interpreter some thousand times per step. A background thread that runs many
small operations holds the interpreter between them and slows the engine down several times,
whatever the thread's priority. Such code calls `pause` between two operations.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

SLICE_S = 0.0005
"""CPU time between two pauses."""
CHUNK_ELEMENTS = 1 << 18
"""Largest number of elements that one operation should process between two pauses."""


@dataclass(slots=True)
class _Throttle:
    share: Callable[[], float]
    thread_time_s: float
    """CPU time of the thread at the end of its last pause."""


_local = threading.local()


def throttle_thread(share: Callable[[], float]) -> None:
    """Limit the calling thread to `share()` of a core's time, enforced by its calls to `pause`."""
    _local.throttle = _Throttle(share, time.thread_time())


def pause() -> None:
    """Sleep if the calling thread is throttled and has used up its slice."""
    throttle: _Throttle | None = getattr(_local, "throttle", None)
    if throttle is None:
        return
    worked_s = time.thread_time() - throttle.thread_time_s
    if worked_s < SLICE_S:
        return
    if (share := throttle.share()) < 1:
        time.sleep(worked_s * (1 / share - 1))
    throttle.thread_time_s = time.thread_time()
