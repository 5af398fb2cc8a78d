"""Passes the rows of tensors to native functions."""

from collections.abc import Callable
from typing import Any

from torch import Tensor


def contiguous_rows(x: Tensor) -> Tensor:
    """Return `x`, `[..., dim]`, as `[rows, dim]` with contiguous rows. Copies only if necessary."""
    rows = x.reshape(-1, x.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()


def packed_product(
    linear: Callable[..., Any], x: Tensor, packed: Tensor, bias: Tensor | None, out_features: int
) -> Tensor:
    """Return `x w^T + bias`, `[..., out_features]`, by the native function `linear`.

    `x` is `[..., in]`, `packed` is the weight `w` in the layout that the function reads, and `bias`
    is `[out_features]` or None.
    """
    rows = contiguous_rows(x)
    y = x.new_empty(*x.shape[:-1], out_features)
    linear(
        rows.data_ptr(),
        rows.stride(0),
        packed.data_ptr(),
        None if bias is None else bias.data_ptr(),
        y.data_ptr(),
        out_features,
        rows.shape[0],
        out_features,
        rows.shape[1],
    )
    return y
