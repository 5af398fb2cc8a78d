"""What the native kernels know of a decoder layer that they compute in one call."""

import ctypes
from collections.abc import Sequence
from ctypes import c_float, c_int64, c_void_p
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class NormParams:
    """Of a root-mean-square norm, as `NativeKernels.rms_norm` has them."""

    weight: Tensor
    epsilon: float
    offset: float
    round_first: bool


@dataclass(frozen=True, slots=True)
class PackedLinear:
    """Linears side by side, packed by `NativeKernels.pack`."""

    weight: Tensor
    bias: Tensor | None
    out_features: int
    in_features: int


@dataclass(frozen=True, slots=True)
class HeadParams:
    """Of a layer's attention."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    sliding_window: int | None
    scaling: float
    softcap: float | None


class NativeLayer:
    """The parameters of one layer, where native code reads them."""

    def __init__(
        self, norms: Sequence[NormParams], linears: Sequence[PackedLinear], heads: HeadParams
    ) -> None:
        """Take them.

        Args:
            norms: in front of attention and MLP.
            linears: q/k/v, o, gate/up, down.
            heads: of the attention.
        """
        self._tensors = (norms, linears)  # native code has their addresses
        self._struct = _Layer(
            norms=(_Norm * 2)(*map(_norm, norms)),
            linears=(_Linear * 4)(*map(_linear, linears)),
            num_heads=heads.num_heads,
            num_kv_heads=heads.num_kv_heads,
            head_dim=heads.head_dim,
            window=heads.sliding_window or 0,
            scaling=heads.scaling,
            softcap=heads.softcap or 0.0,
        )
        self.address = ctypes.addressof(self._struct)


class LayerStep(ctypes.Structure):
    """Step of layer.cpp."""

    _fields_ = [
        *((name, c_void_p) for name in ("x", "y", "cosine", "sine", "slots", "keys", "values")),
        ("attention", c_void_p),
        ("lora", c_void_p * 4),
        ("num_tokens", c_int64),
    ]


class _Norm(ctypes.Structure):
    """Norm of layer.cpp."""

    _fields_ = [
        ("weight", c_void_p), ("epsilon", c_float), ("offset", c_float), ("round_first", c_int64)
    ]  # fmt: skip


class _Linear(ctypes.Structure):
    """Linear of layer.cpp."""

    _fields_ = [
        *((name, c_void_p) for name in ("packed", "bias")),
        *((name, c_int64) for name in ("out_features", "in_features")),
    ]


class _Layer(ctypes.Structure):
    """Layer of layer.cpp."""

    _fields_ = [
        ("norms", _Norm * 2),
        ("linears", _Linear * 4),
        *((name, c_int64) for name in ("num_heads", "num_kv_heads", "head_dim", "window")),
        *((name, c_float) for name in ("scaling", "softcap")),
    ]


def _norm(norm: NormParams) -> _Norm:
    return _Norm(norm.weight.data_ptr(), norm.epsilon, norm.offset, norm.round_first)


def _linear(linear: PackedLinear) -> _Linear:
    bias = None if linear.bias is None else linear.bias.data_ptr()
    return _Linear(linear.weight.data_ptr(), bias, linear.out_features, linear.in_features)
