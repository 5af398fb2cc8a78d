"""Temporary buffers for loading adapters. A few idle buffers are kept for reuse."""

import ctypes
import mmap
import weakref
from collections import deque
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

_LARGE_PAGE = 2 << 20
"""Size of a huge page in bytes. With small pages, mapping takes as long as filling a buffer."""
MAX_IDLE_BUFFERS = 2
MAX_IDLE_BUFFER_BYTES = 16 << 20
"""Maximum size in bytes of a buffer that is kept for reuse.

Reuse saves time: the system must clear new memory, which takes as long as reading an adapter.
"""
_idle: deque[mmap.mmap] = deque(maxlen=MAX_IDLE_BUFFERS)


def scratch(num_bytes: int) -> Bytes:
    """Return an uninitialised buffer of `num_bytes` bytes.

    Once nothing refers to the buffer, its memory is kept for reuse if it has at most
    MAX_IDLE_BUFFER_BYTES, and is returned to the system otherwise. malloc isn't used, because it
    would keep freed memory that no budget of the adapter tiers accounts for.
    """
    memory = _take_idle(num_bytes) or _map(num_bytes)
    view = (ctypes.c_ubyte * num_bytes).from_buffer(memory)
    weakref.finalize(view, _keep_idle, memory).atexit = False
    return np.ctypeslib.as_array(view)


def _take_idle(num_bytes: int) -> mmap.mmap | None:
    """Return an idle buffer of at least `num_bytes`, or None. Free smaller idle buffers."""
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
