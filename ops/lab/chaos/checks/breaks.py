"""Explains why streams of official clients broke. These clients don't continue a stream."""

from collections.abc import Sequence

from ops.lab.chaos.faults.fault import FaultRecord
from ops.lab.chaos.load.record import Record

BREAKING = frozenset(("front end", "network"))
"""Subjects of faults that may end a connection. After all others, a stream must go on."""
AFTER_S = 60.0
"""Longest time from a recovery until a client notices a broken connection.

A connection whose packets are dropped ends when its retransmissions have failed."""


def unexplained_breaks(records: Sequence[Record], faults: Sequence[FaultRecord]) -> list[Record]:
    """Return the records of streams that broke although no fault hit their connection."""
    breaking = [fault for fault in faults if fault.subject in BREAKING]
    return [
        record
        for record in records
        if record.broken_s and not any(_explains(fault, record.broken_s) for fault in breaking)
    ]


def _explains(fault: FaultRecord, broken_s: float) -> bool:
    last_s = fault.recovered_s if fault.recovered_s is not None else float("inf")
    after_s = AFTER_S if fault.subject == "network" else 0.0
    return fault.injected_s <= broken_s <= last_s + after_s
