"""Copies small arrays between the host and a device, many in one transfer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]
T = TypeVar("T")

_ALIGNMENT = 8
"""Each array starts at a multiple of this number of bytes: the size of the largest elements."""
_DTYPES: dict[np.dtype[Any], torch.dtype] = {
    np.dtype(np.uint8): torch.uint8,
    np.dtype(np.int32): torch.int32,
    np.dtype(np.int64): torch.int64,
    np.dtype(np.float32): torch.float32,
    np.dtype(np.float64): torch.float64,
}
_NUMPY_DTYPES = {torch_dtype: dtype for dtype, torch_dtype in _DTYPES.items()}


def to_device(arrays: Sequence[Array], device: torch.device) -> list[Tensor]:
    """Copy arrays to the device in one transfer. Don't wait for the device."""
    starts = [0, *accumulate(-(-array.nbytes // _ALIGNMENT) * _ALIGNMENT for array in arrays)]
    # A copy from memory that isn't pinned would wait for the device.
    host = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=device.type == "cuda")
    content = host.numpy()
    for array, start in zip(arrays, starts, strict=False):
        content[start : start + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view("u1")
    copy = host.to(device, non_blocking=True)
    return [
        copy[start : start + array.nbytes].view(_DTYPES[array.dtype]).view(array.shape)
        for array, start in zip(arrays, starts, strict=False)
    ]


def to_host(tensors: Sequence[Tensor]) -> list[Array]:
    """Copy tensors to the host in one transfer. Wait for the device.

    If `tensors` is one tensor on the CPU, its array shares the tensor's memory.
    """
    if len(tensors) < 2:
        return [tensor.cpu().numpy() for tensor in tensors]
    flat = torch.cat([tensor.contiguous().view(-1).view(torch.uint8) for tensor in tensors])
    host, start, arrays = flat.cpu().numpy(), 0, []
    for tensor in tensors:
        part = host[start : start + tensor.nbytes]
        arrays.append(part.view(_NUMPY_DTYPES[tensor.dtype]).reshape(tensor.shape))
        start += tensor.nbytes
    return arrays


@dataclass(slots=True, eq=False)
class Pending(Generic[T]):
    """A value that is computed on the host once its device tensors were read to the host."""

    tensors: Sequence[Tensor]
    finish: Callable[[Sequence[Array]], T]
    """Computes the value from the tensors' content."""
    arrays: Sequence[Array] | None = None
    """Content of the tensors; None until they are read."""

    def value(self) -> T:
        """Return the value. Its tensors must have been read."""
        assert self.arrays is not None
        return self.finish(self.arrays)


def read_all(*pending: Pending[Any]) -> None:
    """Read the tensors of all pending values in one transfer. Wait for the device."""
    arrays = iter(to_host([tensor for one in pending for tensor in one.tensors]))
    for one in pending:
        one.arrays = [next(arrays) for _ in one.tensors]
