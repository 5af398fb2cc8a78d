"""Returns freed memory to the operating system."""

import ctypes


def return_freed_memory() -> None:
    """Return memory that the process has freed, if its C library can.

    glibc keeps freed memory in case the process needs it again. What loading and quantising a model
    has freed is as large as the model.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
