"""Measures for how long faults delayed streams."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from statistics import median

from ops.lab.chaos.faults.fault import FaultRecord
from ops.lab.chaos.load.record import Record
from ops.lab.chaos.load.requests import Manner

STEADY = frozenset((Manner.STREAM, Manner.OFFICIAL, Manner.TWICE, Manner.CANCEL))
"""Manners of clients that read their streams without a pause."""
MIN_FELT_S = 0.5
"""A stream is affected by a fault if one of its gaps is at least this much longer than usual."""
AFTER_S = 3.0
"""A fault can have caused a gap that begins at most this many seconds after the recovery."""
BEFORE_S = 1.0
"""A gap that a fault causes can begin up to this many seconds before the fault's injection.

A gap begins when the last part before it arrives.
"""


@dataclass(frozen=True, slots=True)
class Gap:
    """Time between two parts of one stream, or between its request and its first part."""

    start_s: float
    end_s: float
    excess_s: float
    """Seconds by which the gap is longer than the stream's usual gaps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Felt:
    """Number of streams that one fault could delay, and the delays that it caused."""

    active: int
    """Number of streams that were open during the fault."""
    affected_s: tuple[float, ...]
    """For each affected stream, the longest gap minus the usual gap, in seconds; sorted."""


class FeltTimes:
    """Finds the delays that faults caused, from the gaps of all streams of a run."""

    def __init__(self, records: Sequence[Record]) -> None:
        steady = [r for r in records if r.is_stream and r.manner in STEADY and r.arrivals_ms]
        first_ms = median([r.arrivals_ms[0] for r in steady]) if steady else 0.0
        self._streams = sorted(
            (r.sent_s, r.ended_s, _long_gaps(r, first_ms / 1000)) for r in steady
        )

    def of(self, fault: FaultRecord, next_s: float) -> Felt:
        """Return the delays that a fault caused. The next fault was injected at `next_s`."""
        begin_s = fault.injected_s - BEFORE_S
        end_s = min(next_s, (fault.recovered_s or fault.healed_s) + AFTER_S)
        num_started = bisect_left(self._streams, (end_s,))
        active = [gaps for _, last, gaps in self._streams[:num_started] if last >= begin_s]
        worst = [
            max((gap.excess_s for gap in gaps if begin_s <= gap.start_s < end_s), default=0.0)
            for gaps in active
        ]
        return Felt(active=len(active), affected_s=tuple(sorted(each for each in worst if each)))


def _long_gaps(record: Record, usual_first_s: float) -> tuple[Gap, ...]:
    """Return the gaps of a stream that are unusually long."""
    times = [record.sent_s + ms / 1000 for ms in record.arrivals_ms]
    lengths = [after - before for before, after in pairwise(times)]
    usual_s = median(lengths) if lengths else 0.0
    starts = [record.sent_s, *times[:-1]]
    usual = [usual_first_s, *(usual_s for _ in lengths)]
    gaps = (
        Gap(start, end, end - start - normal)
        for start, end, normal in zip(starts, times, usual, strict=True)
    )
    return tuple(gap for gap in gaps if gap.excess_s >= MIN_FELT_S)


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the nearest-rank percentile of the sorted `values` for a `share` from 0 to 1.

    Returns None if there are no values.
    """
    return values[max(0, ceil(share * len(values)) - 1)] if values else None
