"""Which pages of the pool belong to whom. Policy only: no torch, no weights.

A page is PAGE_ROWS rows of one module group's storage. Methods that move pages return the moves
as (source, target) pairs, which the owner of the weights must carry out at once: all sources are
read before any target is written.
"""

from collections.abc import Iterable

PAGE_ROWS = 8

Move = tuple[int, int]


def pages_of_rank(rank: int) -> int:
    """How many pages hold `rank` rows."""
    return -(-rank // PAGE_ROWS)


class PageTable:
    """The pages of one module group: `capacity` of them, each free or owned by one adapter."""

    def __init__(self) -> None:
        self._owned: dict[str, list[int]] = {}
        self._free: set[int] = set()

    @property
    def capacity(self) -> int:
        """Pages in the storage."""
        return self.num_used + len(self._free)

    @property
    def num_used(self) -> int:
        """Pages that are owned."""
        return sum(len(pages) for pages in self._owned.values())

    def pages(self, owner: str) -> tuple[int, ...]:
        """The owner's pages, in the order of its rows; empty if it has none."""
        return tuple(self._owned.get(owner, ()))

    def can_allocate(self, num_pages: int) -> bool:
        """Whether as many pages are free."""
        return num_pages <= len(self._free)

    def allocate(self, owner: str, num_pages: int) -> tuple[int, ...]:
        """Give `owner`, who has none, its pages: side by side if there is such a gap."""
        assert owner not in self._owned
        assert self.can_allocate(num_pages)
        free = sorted(self._free)
        pages = _first_run(free, num_pages) or free[:num_pages]
        self._free.difference_update(pages)
        self._owned[owner] = pages
        return tuple(pages)

    def release(self, owner: str) -> None:
        """Take back the owner's pages, if it has any."""
        self._free.update(self._owned.pop(owner, ()))

    def grow(self, capacity: int) -> None:
        """Add free pages at the end, up to `capacity`."""
        self._free.update(range(self.capacity, capacity))

    def shrink(self) -> list[Move]:
        """Drop all free pages; pages behind the new end move into the gaps."""
        size = self.num_used
        gaps = sorted(page for page in self._free if page < size)
        behind = sorted(p for pages in self._owned.values() for p in pages if p >= size)
        moves = list(zip(behind, gaps, strict=True))
        self._free.clear()
        self._rename(moves)
        return moves

    def _rename(self, moves: Iterable[Move]) -> None:
        target = dict(moves)
        for pages in self._owned.values():
            pages[:] = [target.get(page, page) for page in pages]


def _first_run(free: list[int], length: int) -> list[int]:
    """The first `length` neighbours among the sorted `free`; empty if there are none."""
    for start in range(len(free) - length + 1):
        if free[start + length - 1] - free[start] == length - 1:
            return free[start : start + length]
    return []
