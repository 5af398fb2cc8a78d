"""Temporary buffers for loading adapters, with a few kept for reuse."""

import ctypes
import mmap
import weakref
from collections import deque
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

_LARGE_PAGE = 2 << 20
"""Bytes of a huge page. Mapping this much in small pages takes as long as filling it."""
MAX_IDLE_BUFFERS = 2
MAX_IDLE_BUFFER_BYTES = 16 << 20
"""Largest buffer that is kept. Clearing new memory takes as long as reading an adapter into it."""
_idle: deque[mmap.mmap] = deque(maxlen=MAX_IDLE_BUFFERS)


def scratch(num_bytes: int) -> Bytes:
    """Return an uninitialised buffer of `num_bytes`.

    The memory is returned to the system when nothing refers to the buffer, except for a few idle
    buffers. It isn't allocated by malloc, which would keep freed memory beyond the budgets of the
    adapter tiers.
    """
    memory = _take_idle(num_bytes) or _map(num_bytes)
    view = (ctypes.c_ubyte * num_bytes).from_buffer(memory)
    weakref.finalize(view, _keep_idle, memory).atexit = False
    return np.ctypeslib.as_array(view)


def _take_idle(num_bytes: int) -> mmap.mmap | None:
    """Take an idle buffer that is large enough, and free those that are too small."""
    with suppress(IndexError):  # no idle buffer is left
        while True:
            memory = _idle.pop()
            if len(memory) >= num_bytes:
                return memory
    return None


def _keep_idle(memory: mmap.mmap) -> None:
    if len(memory) <= MAX_IDLE_BUFFER_BYTES:
        _idle.append(memory)


def _map(num_bytes: int) -> mmap.mmap:
    memory = mmap.mmap(-1, max(num_bytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if num_bytes >= _LARGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # the kernel doesn't support huge pages
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
