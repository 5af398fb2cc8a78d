"""Int8 weights for the native kernels, and the product with them."""

import ctypes
from collections.abc import Sequence
from ctypes import c_int64, c_void_p
from dataclasses import dataclass

import torch
from torch import Tensor

GROUP = 64
"""Number of neighbouring inputs of a row that share a scale. Must equal GROUP in int8/groups.h."""
BYTES_PER_WEIGHT = 1 + torch.bfloat16.itemsize / GROUP
"""Memory of a weight, its share of a scale included."""
FORMAT = "int8-64"
"""Name of the format, which is part of a quantised model's digest."""


@dataclass(frozen=True, slots=True, eq=False)
class Int8Weight:
    """A weight `[out, in]` in int8, with a scale for each group of `GROUP` inputs of a row."""

    values: Tensor
    """`[out, in]` int8, between -127 and 127."""
    scales: Tensor
    """`[out, ceil(in / GROUP)]` bfloat16: the weight is `values` times the scale of their group."""

    def dequantised(self) -> Tensor:
        """Return the weight in float32, which represents it exactly."""
        scales = self.scales.float().repeat_interleave(GROUP, dim=1)
        return self.values.float().mul_(scales[:, : self.values.shape[1]])


def joined(weights: Sequence[Int8Weight]) -> Int8Weight:
    """Return weights of the same inputs, concatenated along their outputs."""
    if len(weights) == 1:
        return weights[0]
    return Int8Weight(
        torch.cat([weight.values for weight in weights]),
        torch.cat([weight.scales for weight in weights]),
    )


class Int8Kernels:
    """Quantises weights, and multiplies by them. Inputs and outputs have the kernels' dtype."""

    def __init__(self, library: ctypes.CDLL, suffix: str) -> None:
        """Bind the functions of `library` for the dtype that `suffix` names."""
        size = c_int64
        self._quantise = getattr(library, f"quantise_int8_{suffix}")
        self._quantise.argtypes = [c_void_p, c_void_p, c_void_p, size, size]
        self._linear = getattr(library, f"linear_int8_{suffix}")
        self._linear.argtypes = [
            c_void_p,
            size,
            c_void_p,
            c_void_p,
            c_void_p,
            size,
            size,
            size,
            size,
        ]
        self._packed_size = library.linear_int8_packed_size
        self._packed_size.argtypes, self._packed_size.restype = [size, size], c_int64
        self._pack = library.linear_int8_pack
        self._pack.argtypes = [c_void_p, c_void_p, c_void_p, size, size]
        self._unpack = library.linear_int8_unpack
        self._unpack.argtypes = [c_void_p, c_void_p, c_void_p, size, size]
        for function in (self._quantise, self._linear, self._pack, self._unpack):
            function.restype = None

    def quantise(self, weight: Tensor) -> Int8Weight:
        """Quantise a weight `[out, in]` of the kernels' dtype.

        The largest magnitude of a group becomes 127, unless rounding its scale up makes it less.
        """
        weight = weight.contiguous()
        int8 = _empty(*weight.shape)
        self._quantise(
            weight.data_ptr(), int8.values.data_ptr(), int8.scales.data_ptr(), *weight.shape
        )
        return int8

    def pack(self, weight: Int8Weight) -> Tensor:
        """Return the weight in the layout that `linear` reads."""
        packed = torch.empty(self._packed_size(*weight.values.shape), dtype=torch.uint8)
        self._pack(
            weight.values.data_ptr(),
            weight.scales.data_ptr(),
            packed.data_ptr(),
            *weight.values.shape,
        )
        return packed

    def unpack(self, packed: Tensor, out_features: int, in_features: int) -> Int8Weight:
        """Return the weight of which `packed` is the packed form."""
        int8 = _empty(out_features, in_features)
        self._unpack(
            packed.data_ptr(),
            int8.values.data_ptr(),
            int8.scales.data_ptr(),
            out_features,
            in_features,
        )
        return int8

    def linear(self, rows: Tensor, packed: Tensor, bias: Tensor | None, y: Tensor) -> None:
        """Write `rows w^T + bias` to `y`, for a packed weight `w` of shape `[out, in]`.

        The rows are quantised in groups of `GROUP` inputs. A row's result doesn't depend on the
        other rows.

        Args:
            rows: `[n, in]`. Each row is contiguous.
            packed: the result of `pack` for `w`.
            bias: `[out]`, or None.
            y: `[n, out]`, contiguous.
        """
        self._linear(
            rows.data_ptr(),
            rows.stride(0),
            packed.data_ptr(),
            None if bias is None else bias.data_ptr(),
            y.data_ptr(),
            y.shape[-1],
            rows.shape[0],
            y.shape[-1],
            rows.shape[1],
        )


def _empty(out_features: int, in_features: int) -> Int8Weight:
    return Int8Weight(
        torch.empty(out_features, in_features, dtype=torch.int8),
        torch.empty(out_features, -(-in_features // GROUP), dtype=torch.bfloat16),
    )
