"""Quantises weights to int8 for the native kernels, and multiplies inputs by such weights."""

import ctypes
from collections.abc import Callable, Sequence
from ctypes import c_int64, c_void_p
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

GROUP = 32
"""Number of neighbouring inputs of a row that share a scale. Must equal GROUP in groups.h."""
BYTES_PER_WEIGHT = torch.int8.itemsize + torch.bfloat16.itemsize / GROUP
"""Bytes per quantised weight, including its share of its group's scale."""
_PIECE = 1 << 18
"""Number of values that are dequantised at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class QuantisedWeight:
    """A weight `[out, in]` in int8. In each row, every GROUP neighbouring inputs share a scale."""

    values: Tensor
    """`[out, in]` int8, between -127 and 127."""
    scales: Tensor
    """`[out, ceil(in / GROUP)]` bfloat16: factor for the values of each group.

    The weight is `values` multiplied by these factors."""

    def dequantised(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the weight in `dtype`. The conversion to float32 is exact."""
        num_rows, num_inputs = self.values.shape
        weight = torch.empty(num_rows, num_inputs, dtype=dtype)
        step = max(1, _PIECE // num_inputs)
        for start in range(0, num_rows, step):  # float32 takes four times the memory of int8
            rows = slice(start, start + step)
            scales = self.scales[rows].float().repeat_interleave(GROUP, dim=1)
            weight[rows] = self.values[rows].float().mul_(scales[:, :num_inputs])
        return weight


def joined(weights: Sequence[QuantisedWeight]) -> QuantisedWeight:
    """Concatenate weights along their outputs. All of their linears must have the same input."""
    if len(weights) == 1:
        return weights[0]
    return QuantisedWeight(
        torch.cat([weight.values for weight in weights]),
        torch.cat([weight.scales for weight in weights]),
    )


class QuantisedKernels:
    """Quantises weights to int8, and multiplies inputs by quantised weights.

    Weights to quantise, inputs and outputs have the dtype of the native kernels.
    """

    def __init__(self, library: ctypes.CDLL, suffix: str) -> None:
        """Bind the functions of `library` for the dtype that `suffix` names."""
        pointer, size = c_void_p, c_int64
        self._quantise = getattr(library, f"quantise_int8_{suffix}")
        self._quantise.argtypes = [pointer, pointer, pointer, size, size]
        self._linear = getattr(library, f"linear_int8_{suffix}")
        self._linear.argtypes = [pointer, size, pointer, pointer, pointer, size, size, size, size]
        self._packed_size = library.packed_size_int8
        self._packed_size.argtypes, self._packed_size.restype = [size, size], c_int64
        self._pack = library.pack_int8
        self._pack.argtypes = [pointer, pointer, pointer, size, size]
        self._unpack = library.unpack_int8
        self._unpack.argtypes = [pointer, pointer, pointer, size, size]
        for function in (self._quantise, self._linear, self._pack, self._unpack):
            function.restype = None

    def quantise(self, weight: Tensor) -> QuantisedWeight:
        """Round each value of a weight `[out, in]` to a multiple of its group's scale.

        A group's scale is the smallest bfloat16 number that is at least 1/127 of the largest
        magnitude in the group.
        """
        weight = weight.contiguous()
        found = self._empty(*weight.shape)
        self._quantise(
            weight.data_ptr(), found.values.data_ptr(), found.scales.data_ptr(), *weight.shape
        )
        return found

    def pack(self, weight: QuantisedWeight) -> Tensor:
        """Return the weight in the layout that `linear` reads."""
        packed = torch.empty(self._packed_size(*weight.values.shape), dtype=torch.uint8)
        self._pack(
            weight.values.data_ptr(),
            weight.scales.data_ptr(),
            packed.data_ptr(),
            *weight.values.shape,
        )
        return packed

    def unpack(self, packed: Tensor, out_features: int, in_features: int) -> QuantisedWeight:
        """Return the weight from which `pack` made `packed`."""
        found = self._empty(out_features, in_features)
        self._unpack(
            packed.data_ptr(),
            found.values.data_ptr(),
            found.scales.data_ptr(),
            out_features,
            in_features,
        )
        return found

    def linear(self, x: Tensor, packed: Tensor, bias: Tensor | None, out_features: int) -> Tensor:
        """Compute `x w^T + bias`. `packed` is what `pack` returned for `w`; see `packed_product`.

        `x` is quantised to int8 in groups of GROUP inputs, like the weight. The result of a row
        doesn't depend on the other rows.
        """
        return packed_product(self._linear, x, packed, bias, out_features)

    def _empty(self, out_features: int, in_features: int) -> QuantisedWeight:
        num_groups = -(-in_features // GROUP)
        return QuantisedWeight(
            torch.empty(out_features, in_features, dtype=torch.int8),
            torch.empty(out_features, num_groups, dtype=torch.bfloat16),
        )


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
