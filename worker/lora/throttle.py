"""Lets a thread that loads adapters leave time to the engine.

The engine needs the interpreter some thousand times in a step, and a thread that keeps taking it
in between, as code made of many small operations does, slows it down several times, whatever that
thread's priority is. So such code calls `pause` between two operations.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

SLICE_S = 0.0005
"""Work between two pauses; then as much rest as keeps to the share."""
AT_ONCE = 1 << 18
"""Elements that one operation goes over between two pauses."""


@dataclass(slots=True)
class _Pace:
    share: Callable[[], float]
    worked_s: float


_own = threading.local()


def take_pauses(share: Callable[[], float]) -> None:
    """Keep the calling thread to what `share` says of a core's time, at its pauses."""
    _own.pace = _Pace(share, time.thread_time())


def pause() -> None:
    """Rest, if the calling thread takes pauses and has worked since the last one."""
    pace: _Pace | None = getattr(_own, "pace", None)
    if pace is None:
        return
    worked_s = time.thread_time() - pace.worked_s
    if worked_s < SLICE_S:
        return
    if (share := pace.share()) < 1:
        time.sleep(worked_s * (1 / share - 1))
    pace.worked_s = time.thread_time()
