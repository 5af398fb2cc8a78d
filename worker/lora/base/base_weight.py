"""What reading an adapter asks of the base's weights, which may be packed by then."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

_ROWS_AT_ONCE = 4096
"""Bounds the copies that a wider dtype asks for."""


@dataclass(frozen=True, slots=True, eq=False)
class BaseWeight:
    """The weight of one base linear, as far as it can still be asked."""

    squares: Tensor
    """`[out]`: the squared length of each row, of `wide_dtype`."""
    bias: Tensor | None
    """`[out]`."""
    product: Callable[[Tensor], Tensor]
    """`[n, in]` to `[n, out]`: times the weight, without the bias."""


def weight_of(linear: nn.Module) -> Tensor | None:
    """`[out, in]`: a view of the linear's weight; None if it is quantised."""
    if isinstance(linear, Conv1D):
        transposed: Tensor = linear.weight.data.t()
        return transposed
    return linear.weight.data if type(linear) is nn.Linear else None


@torch.no_grad()
def row_squares(weight: Tensor) -> Tensor:
    """`[out]`: the squared length of each row of `weight` `[out, in]`, in its `wide_dtype`."""
    dtype = wide_dtype(weight.dtype)
    parts = torch.split(weight, _ROWS_AT_ONCE)
    return torch.cat([torch.linalg.vector_norm(part, dim=1, dtype=dtype) for part in parts]) ** 2


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """What vectors that scale and shift outputs of `dtype` are kept in: float32 at least."""
    return torch.promote_types(dtype, torch.float32)


@dataclass(frozen=True, slots=True)
class BaseTable:
    """The weight of the input embedding or the output head, known again without being at hand."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    digest: bytes

    def equals(self, tensor: Tensor) -> bool:
        """Whether `tensor` is the same weight, to the base's precision."""
        return tuple(tensor.shape) == self.shape and _digest(tensor.to(self.dtype)) == self.digest


def base_table(weight: Tensor) -> BaseTable:
    """By which `weight` is known again."""
    return BaseTable(tuple(weight.shape), weight.dtype, _digest(weight))


def _digest(tensor: Tensor) -> bytes:
    memory = tensor.detach().cpu().contiguous().view(torch.uint8).numpy()
    return hashlib.sha256(memory.data).digest()
