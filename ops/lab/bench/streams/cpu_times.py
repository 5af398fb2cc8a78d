"""CPU time of processes."""

from collections.abc import Iterable

import psutil


def cpu_s(pids: Iterable[int]) -> float:
    """Return the CPU time of all these processes so far in seconds."""
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return float(sum(one.user + one.system for one in times))
