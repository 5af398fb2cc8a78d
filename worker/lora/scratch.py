"""Memory that a load needs for a while."""

import mmap
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

_LARGE_PAGE = 2 << 20
"""Bytes; to get as much in small ones takes as long as to fill it."""


def scratch(num_bytes: int) -> Bytes:
    """So many zeros, which the system has back as soon as they are given up.

    What malloc keeps for later would come on top of the budgets of the tiers.
    """
    memory = mmap.mmap(-1, max(num_bytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if num_bytes >= _LARGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)[:num_bytes]
