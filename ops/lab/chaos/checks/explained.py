"""Finds broken streams and ended processes that the faults of a run don't explain."""

import math
from collections.abc import Sequence

from ops.lab.chaos.cluster.supervised import ProcessEnd
from ops.lab.chaos.faults.fault import FaultRecord
from ops.lab.chaos.load.record import Record

BREAKING = frozenset(("front end", "network"))
"""Subjects of faults that may end a connection. Streams must survive all other faults."""
AFTER_S = 60.0
"""Maximum seconds from the recovery after a network fault until a client notices a broken stream.

A connection whose packets are dropped ends when its retransmissions have failed."""
LOOP_ENDS = 4
LOOP_S = 30.0
"""A process that ends `LOOP_ENDS` times within `LOOP_S` restarts in a loop."""


def unexplained_breaks(records: Sequence[Record], faults: Sequence[FaultRecord]) -> list[Record]:
    """Return the records of streams that broke although no fault hit their connection."""
    breaking = [fault for fault in faults if fault.subject in BREAKING]
    return [
        record
        for record in records
        if record.broken_s
        and not any(_explains_break(fault, record.broken_s) for fault in breaking)
    ]


def _explains_break(fault: FaultRecord, broken_s: float) -> bool:
    after_s = AFTER_S if fault.subject == "network" else 0.0
    return fault.injected_s <= broken_s <= _last_s(fault) + after_s


def unexplained(ends: Sequence[ProcessEnd], faults: Sequence[FaultRecord]) -> list[ProcessEnd]:
    """Return those ends of processes that aren't explained by a fault in the same process."""
    return [end for end in ends if not any(_explains_end(fault, end) for fault in faults)]


def loops(ends: Sequence[ProcessEnd]) -> list[str]:
    """Return the names of the processes that restarted in a loop."""
    found = set()
    for name in {end.process for end in ends}:
        times = sorted(end.at_s for end in ends if end.process == name)
        later = times[LOOP_ENDS - 1 :]
        if any(last - first <= LOOP_S for first, last in zip(times, later, strict=False)):
            found.add(name)
    return sorted(found)


def _explains_end(fault: FaultRecord, end: ProcessEnd) -> bool:
    is_hit = fault.target == end.process or fault.target.endswith(f" {end.process}")
    return is_hit and fault.injected_s <= end.at_s <= _last_s(fault)


def _last_s(fault: FaultRecord) -> float:
    return fault.recovered_s if fault.recovered_s is not None else math.inf
