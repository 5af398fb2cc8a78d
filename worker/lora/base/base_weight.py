"""Properties of a base linear's weight that stay available after the weight is packed."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from worker.upstream.linears import Conv1D

_CHUNK_ROWS = 4096
"""Number of rows of a weight that are processed at a time, to limit the memory for copies."""


@dataclass(frozen=True, slots=True, eq=False)
class BaseWeight:
    """Properties of one base linear's weight that stay available after packing."""

    squares: Tensor
    """Squared length of each row of the weight: `[out]`, in float32 or wider."""
    bias: Tensor | None
    """`[out]`, or None if the linear has no bias."""
    product: Callable[[Tensor], Tensor]
    """Multiplies an input `[n, in]` by the weight and returns `[n, out]`, without the bias."""


def weight_of(linear: nn.Module) -> Tensor | None:
    """Return a view `[out, in]` of the linear's weight, or None if the weight is quantised."""
    if isinstance(linear, Conv1D):
        transposed: Tensor = linear.weight.data.t()
        return transposed
    return linear.weight.data if type(linear) is nn.Linear else None


@torch.no_grad()
def row_squares(weight: Tensor) -> Tensor:
    """Return the squared length of each row of `weight` `[out, in]`, in float32 or wider."""
    dtype = wide_dtype(weight.dtype)
    parts = torch.split(weight, _CHUNK_ROWS)
    return torch.cat([torch.linalg.vector_norm(part, dim=1, dtype=dtype) for part in parts]) ** 2


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the wider of `dtype` and float32, for vectors that scale or shift outputs."""
    return torch.promote_types(dtype, torch.float32)


@dataclass(frozen=True, slots=True)
class BaseTable:
    """Shape, dtype and digest that identify the weight of an embedding or an output head."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    digest: bytes
    """SHA-256 of the weight's bytes."""

    def equals(self, tensor: Tensor) -> bool:
        """Return whether `tensor`, cast to the base weight's dtype, equals the base weight."""
        return tuple(tensor.shape) == self.shape and _digest(tensor.to(self.dtype)) == self.digest


def base_table(weight: Tensor) -> BaseTable:
    """Return the shape, dtype and digest of `weight`."""
    return BaseTable(tuple(weight.shape), weight.dtype, _digest(weight))


def _digest(tensor: Tensor) -> bytes:
    memory = tensor.detach().cpu().contiguous().view(torch.uint8).numpy()
    return hashlib.sha256(memory.data).digest()
