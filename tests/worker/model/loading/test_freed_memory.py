"""Memory of this process before and after it returns what it has freed."""

import ctypes
import sys

import psutil
import pytest

from worker.model.out_of_memory import return_freed_memory

NUM_BLOCKS = 2000
BLOCK_BYTES = 100_000
"""Size of a block. glibc maps memory for larger blocks, and returns it at once."""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc has malloc_trim")
def test_freed_memory_is_returned() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    blocks = [libc.malloc(BLOCK_BYTES) for _ in range(NUM_BLOCKS)]
    for block in blocks:
        ctypes.memset(block, 1, BLOCK_BYTES)
    last = libc.malloc(BLOCK_BYTES)  # keeps the blocks before it from being returned at once
    for block in blocks:
        libc.free(block)
    before = resident()
    return_freed_memory()
    after = resident()
    libc.free(last)
    assert before - after > NUM_BLOCKS * BLOCK_BYTES / 2


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    return int(psutil.Process().memory_info().rss)
