"""Which memory belongs to whom. Policy only: no torch, no weights.

Memory is counted in units of UNIT_BYTES. A page is a block of units side by side: PAGE_ROWS rows
of one linear, A and B. Pages of different linears differ in size, so that what is free may be cut
up; but a page is small beside what an adapter needs, and fills the gaps that others leave.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

PAGE_ROWS = 8
UNIT_BYTES = 512
"""A page's size is rounded up to it: pages of real models lose nothing by that."""


class Blocks(NamedTuple):
    """Blocks of one size. Each lies in one piece, but they may lie apart."""

    number: int
    units: int
    """Of each."""


class Run(NamedTuple):
    """Units side by side; where they hold blocks, whole ones."""

    start: int
    units: int


def pages_of_rank(rank: int) -> int:
    """How many pages hold `rank` rows."""
    return -(-rank // PAGE_ROWS)


def units_of(num_bytes: int) -> int:
    """How many units hold `num_bytes`."""
    return -(-num_bytes // UNIT_BYTES)


class Units:
    """So many units of memory, each free or given to somebody."""

    def __init__(self, num_units: int) -> None:
        self.num_units = num_units
        self._free = [Run(0, num_units)]
        """In order; no two touch."""
        self._num_free = num_units

    @property
    def num_used(self) -> int:
        """Units that were given away."""
        return self.num_units - self._num_free

    def allocate(self, wanted: Sequence[Blocks]) -> list[list[Run]] | None:
        """Runs for each of `wanted`, in order; None if the free units don't do.

        All in one piece where there is such a gap, the smallest one that does; else wherever
        there are gaps.
        """
        num_units = sum(blocks.number * blocks.units for blocks in wanted)
        if num_units > self._num_free:
            return None
        whole = min((gap for gap in self._free if gap.units >= num_units),
                    key=lambda gap: gap.units, default=None)  # fmt: skip
        cut = _cut([whole] if whole else self._free, wanted)
        if cut is None:
            return None
        runs, left = cut
        others = [gap for gap in self._free if gap is not whole] if whole else []
        self._free = sorted([*others, *left])
        self._num_free -= num_units
        return runs

    def release(self, runs: Iterable[Run]) -> None:
        """Take runs back."""
        runs = list(runs)
        self._free = _joined(sorted([*self._free, *runs]))
        self._num_free += sum(run.units for run in runs)


def _cut(gaps: list[Run], wanted: Sequence[Blocks]) -> tuple[list[list[Run]], list[Run]] | None:
    """Runs for each of `wanted`, and what is left of `gaps`; None if they don't do.

    The largest blocks come first, as smaller ones fit into what these leave.
    """
    runs: list[list[Run]] = [[] for _ in wanted]
    for index in sorted(range(len(wanted)), key=lambda i: -wanted[i].units):
        missing, size = wanted[index]
        left = []
        for start, units in gaps:
            taken = min(missing, units // size) * size
            if taken:
                runs[index].append(Run(start, taken))
                missing -= taken // size
            if taken < units:
                left.append(Run(start + taken, units - taken))
        if missing:
            return None
        gaps = left
    return runs, gaps


def _joined(runs: Sequence[Run]) -> list[Run]:
    """Sorted `runs` with those that touch in one; none may overlap."""
    joined: list[Run] = []
    for run in runs:
        if joined and joined[-1].start + joined[-1].units == run.start:
            run = Run(joined[-1].start, joined.pop().units + run.units)
        assert not joined or joined[-1].start + joined[-1].units <= run.start
        joined.append(run)
    return joined
