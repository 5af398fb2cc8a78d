"""Memory that a load needs for a while."""

import ctypes
import mmap
import weakref
from collections import deque
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

_LARGE_PAGE = 2 << 20
"""Bytes; to get as much in small ones takes as long as to fill it."""
MAX_SPARES = 2
MAX_SPARE_BYTES = 16 << 20
"""Of one. To clear new memory takes as long as to read an adapter into it."""
_spares: deque[mmap.mmap] = deque(maxlen=MAX_SPARES)


def scratch(num_bytes: int) -> Bytes:
    """So many bytes, whatever they say.

    When nothing refers to them any more, the system has them back, but for a few: what malloc
    keeps for later would come on top of the budgets of the tiers.
    """
    memory = _spare(num_bytes) or _mapped(num_bytes)
    lent = (ctypes.c_ubyte * num_bytes).from_buffer(memory)
    weakref.finalize(lent, _give_back, memory).atexit = False
    return np.ctypeslib.as_array(lent)


def _spare(num_bytes: int) -> mmap.mmap | None:
    """What fits of the spares; one that doesn't is of no use to those who load such adapters."""
    with suppress(IndexError):  # none is left
        while True:
            memory = _spares.pop()
            if len(memory) >= num_bytes:
                return memory
    return None


def _give_back(memory: mmap.mmap) -> None:
    if len(memory) <= MAX_SPARE_BYTES:
        _spares.append(memory)


def _mapped(num_bytes: int) -> mmap.mmap:
    memory = mmap.mmap(-1, max(num_bytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if num_bytes >= _LARGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
