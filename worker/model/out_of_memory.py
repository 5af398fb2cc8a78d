"""Recognises errors that are caused by a lack of memory, and frees memory."""

import ctypes

import torch

_MESSAGES = ("out of memory", "not enough memory", "can't allocate memory")
"""Texts in the messages of out-of-memory errors.

They are the texts of torch and Triton on GPUs, and of torch's allocator on CPUs."""


def is_out_of_memory(error: Exception) -> bool:
    """Return whether `error` says that the device or the machine has too little memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(message in text for message in _MESSAGES)


def free_unused(device: torch.device) -> None:
    """Give back to the device the memory that torch keeps for later allocations."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def return_freed_memory() -> None:
    """Return memory that the process has freed, if its C library can.

    glibc keeps freed memory in case the process needs it again. Loading and quantising a model
    frees as much memory as the model takes.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
