"""Allocates memory units to adapters. Policy only.

Memory is counted in units of UNIT_BYTES. A page is a block of adjacent units that holds PAGE_ROWS
rows of A and B of one linear. Pages of different linears differ in size, so free memory may become
fragmented. Fragmentation does little harm, because pages are small compared with adapters and fit
into the gaps that freed pages leave.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

PAGE_ROWS = 8
"""Number of rows in a page. The native kernels have the same constant (`src/lora/task.h`)."""
UNIT_BYTES = 512
"""Size of a unit in bytes. The page sizes of common models are multiples of it."""


class Blocks(NamedTuple):
    """`number` blocks of equal size. Each block is contiguous, but blocks need not be adjacent."""

    number: int
    units: int
    """Number of units in each block."""


class Run(NamedTuple):
    """A range of adjacent units. A run that is allocated for blocks holds only complete blocks."""

    start: int
    units: int


def pages_of_rank(rank: int) -> int:
    """Return the number of pages needed for `rank` rows."""
    return -(-rank // PAGE_ROWS)


def units_of(num_bytes: int) -> int:
    """Return the number of units needed for `num_bytes` bytes."""
    return -(-num_bytes // UNIT_BYTES)


class Units:
    """Allocator of `num_units` units of memory."""

    def __init__(self, num_units: int) -> None:
        self.num_units = num_units
        self._free = [Run(0, num_units)]
        """Free runs, sorted by start. No two runs are adjacent."""
        self._num_free = num_units

    @property
    def num_used(self) -> int:
        """Number of allocated units."""
        return self.num_units - self._num_free

    def allocate(self, wanted: Sequence[Blocks]) -> list[list[Run]] | None:
        """Allocate the runs of each item of `wanted`, or return None if there isn't enough memory.

        If a free run can hold all blocks, the smallest such run is used. Otherwise, the blocks are
        distributed over several free runs.
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
    """Cut runs for each item of `wanted` from the free runs `gaps`.

    The items with the largest blocks are served first.

    Return the runs of each item and the gaps that remain, or None if the blocks don't fit.
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
    """Merge adjacent runs. `runs` must be sorted and must not overlap."""
    merged: list[Run] = []
    for run in runs:
        if merged and merged[-1].start + merged[-1].units == run.start:
            run = Run(merged[-1].start, merged.pop().units + run.units)
        assert not merged or merged[-1].start + merged[-1].units <= run.start
        merged.append(run)
    return merged
