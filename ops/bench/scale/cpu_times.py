"""CPU time of the parts of a pool. It needs Linux, which counts the CPU time of each thread."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Processes whose CPU time is added up."""

    pids: Sequence[int]
    without_threads: Mapping[int, Sequence[int]] = field(default_factory=dict)
    """By process, threads whose CPU time doesn't count."""

    def cpu_s(self) -> float:
        """Return the CPU time so far in seconds."""
        total = sum(_process_s(pid) for pid in self.pids)
        threads = ((pid, tid) for pid, tids in self.without_threads.items() for tid in tids)
        return total - sum(_thread_s(pid, tid) for pid, tid in threads)


def _process_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _thread_s(pid: int, tid: int) -> float:
    """Return the CPU time of a thread in seconds. The first number of the file is nanoseconds."""
    return int(Path(f"/proc/{pid}/task/{tid}/schedstat").read_text().split()[0]) / 1e9
