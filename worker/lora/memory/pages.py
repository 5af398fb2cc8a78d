"""Allocates memory units to adapters. Policy only.

Memory is counted in units of UNIT_BYTES. A page is a block of adjacent units that holds PAGE_ROWS
rows of A and B of one linear. Pages of different linears differ in size, so free memory may become
fragmented. This does little harm, because a page is small compared with an adapter and fits into
the gaps that others leave.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

PAGE_ROWS = 8
UNIT_BYTES = 512
"""Page sizes are rounded up to a multiple of this. Pages of real models need no rounding."""


class Blocks(NamedTuple):
    """A number of blocks of one size. Each block is contiguous; blocks need not be adjacent."""

    number: int
    units: int
    """Units of each block."""


class Run(NamedTuple):
    """Adjacent units. A run that holds blocks holds complete ones."""

    start: int
    units: int


def pages_of_rank(rank: int) -> int:
    """Return the pages that hold `rank` rows."""
    return -(-rank // PAGE_ROWS)


def units_of(num_bytes: int) -> int:
    """Return the units that hold `num_bytes`."""
    return -(-num_bytes // UNIT_BYTES)


class Units:
    """Allocator of `num_units` units of memory."""

    def __init__(self, num_units: int) -> None:
        self.num_units = num_units
        self._free = [Run(0, num_units)]
        """Free runs in order. No two are adjacent."""
        self._num_free = num_units

    @property
    def num_used(self) -> int:
        """Allocated units."""
        return self.num_units - self._num_free

    def allocate(self, wanted: Sequence[Blocks]) -> list[list[Run]] | None:
        """Return the runs allocated for each of `wanted`, in order; None if there isn't enough.

        Everything goes into the smallest free run that holds all of it. If there is none, the
        blocks are spread over all free runs.
        """
        num_units = sum(blocks.number * blocks.units for blocks in wanted)
        if num_units > self._num_free:
            return None
        best_fit = min((gap for gap in self._free if gap.units >= num_units),
                       key=lambda gap: gap.units, default=None)  # fmt: skip
        cut = _cut([best_fit] if best_fit else self._free, wanted)
        if cut is None:
            return None
        runs, rest = cut
        others = [gap for gap in self._free if gap is not best_fit] if best_fit else []
        self._free = sorted([*others, *rest])
        self._num_free -= num_units
        return runs

    def release(self, runs: Iterable[Run]) -> None:
        """Free allocated runs."""
        runs = list(runs)
        self._free = _merged(sorted([*self._free, *runs]))
        self._num_free += sum(run.units for run in runs)


def _cut(gaps: list[Run], wanted: Sequence[Blocks]) -> tuple[list[list[Run]], list[Run]] | None:
    """Return runs for each of `wanted` and the rest of `gaps`; None if they are too small.

    The largest blocks are placed first, because smaller ones fit into the gaps they leave.
    """
    runs: list[list[Run]] = [[] for _ in wanted]
    for index in sorted(range(len(wanted)), key=lambda i: -wanted[i].units):
        missing, size = wanted[index]
        rest = []
        for start, units in gaps:
            taken = min(missing, units // size) * size
            if taken:
                runs[index].append(Run(start, taken))
                missing -= taken // size
            if taken < units:
                rest.append(Run(start + taken, units - taken))
        if missing:
            return None
        gaps = rest
    return runs, gaps


def _merged(runs: Sequence[Run]) -> list[Run]:
    """Merge adjacent runs. `runs` are sorted and don't overlap."""
    merged: list[Run] = []
    for run in runs:
        if merged and merged[-1].start + merged[-1].units == run.start:
            run = Run(merged[-1].start, merged.pop().units + run.units)
        assert not merged or merged[-1].start + merged[-1].units <= run.start
        merged.append(run)
    return merged
