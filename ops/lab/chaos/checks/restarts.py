"""Explains why processes were started again."""

from collections.abc import Sequence

from ops.lab.chaos.cluster.supervised import ProcessEnd
from ops.lab.chaos.faults.fault import FaultRecord

LOOP_ENDS = 4
LOOP_S = 30.0
"""A process that ends `LOOP_ENDS` times within `LOOP_S` restarts in a loop."""


def unexplained(ends: Sequence[ProcessEnd], faults: Sequence[FaultRecord]) -> list[ProcessEnd]:
    """Return the ends of processes that no fault of the same process explains."""
    return [end for end in ends if not any(_explains(fault, end) for fault in faults)]


def loops(ends: Sequence[ProcessEnd]) -> list[str]:
    """Return the names of the processes that restarted in a loop."""
    found = set()
    for name in {end.process for end in ends}:
        times = sorted(end.at_s for end in ends if end.process == name)
        later = times[LOOP_ENDS - 1 :]
        if any(last - first <= LOOP_S for first, last in zip(times, later, strict=False)):
            found.add(name)
    return sorted(found)


def _explains(fault: FaultRecord, end: ProcessEnd) -> bool:
    last_s = fault.recovered_s if fault.recovered_s is not None else float("inf")
    is_hit = fault.target == end.process or fault.target.endswith(f" {end.process}")
    return is_hit and fault.injected_s <= end.at_s <= last_s
