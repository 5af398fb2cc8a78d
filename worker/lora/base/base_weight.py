"""Properties of base weights that remain readable after the weights are packed."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

_CHUNK_ROWS = 4096
"""Rows per operation, to bound the memory of copies in a wider dtype."""


@dataclass(frozen=True, slots=True, eq=False)
class BaseWeight:
    """Readable properties of the weight of one base linear."""

    squares: Tensor
    """`[out]`: squared length of each row, in the weight's `wide_dtype`."""
    bias: Tensor | None
    """`[out]`."""
    product: Callable[[Tensor], Tensor]
    """Maps `[n, in]` to `[n, out]`: the product with the weight, without the bias."""


def weight_of(linear: nn.Module) -> Tensor | None:
    """Return a view `[out, in]` of the linear's weight; None if it is quantised."""
    if isinstance(linear, Conv1D):
        transposed: Tensor = linear.weight.data.t()
        return transposed
    return linear.weight.data if type(linear) is nn.Linear else None


@torch.no_grad()
def row_squares(weight: Tensor) -> Tensor:
    """Return `[out]`: the squared length of each row of `weight` `[out, in]`, in `wide_dtype`."""
    dtype = wide_dtype(weight.dtype)
    parts = torch.split(weight, _CHUNK_ROWS)
    return torch.cat([torch.linalg.vector_norm(part, dim=1, dtype=dtype) for part in parts]) ** 2


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of vectors that scale or shift outputs of `dtype`: at least float32."""
    return torch.promote_types(dtype, torch.float32)


@dataclass(frozen=True, slots=True)
class BaseTable:
    """Fingerprint of the weight of the input embedding or the output head."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    digest: bytes
    """SHA-256 of the weight's bytes."""

    def equals(self, tensor: Tensor) -> bool:
        """Return whether `tensor`, cast to the base's dtype, is the same weight."""
        return tuple(tensor.shape) == self.shape and _digest(tensor.to(self.dtype)) == self.digest


def base_table(weight: Tensor) -> BaseTable:
    """Return the fingerprint of `weight`."""
    return BaseTable(tuple(weight.shape), weight.dtype, _digest(weight))


def _digest(tensor: Tensor) -> bytes:
    memory = tensor.detach().cpu().contiguous().view(torch.uint8).numpy()
    return hashlib.sha256(memory.data).digest()
