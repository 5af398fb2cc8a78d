"""Parameters of decoder layers for the native kernels; ctypes mirror of `src/layer/layer.cpp`.

The fields of each structure must have the types and the order of those of the C++ struct.
"""

import ctypes
from collections.abc import Sequence
from ctypes import c_float, c_int64, c_void_p
from dataclasses import dataclass

from torch import Tensor

from worker.kernels.interface import AttentionParams


@dataclass(frozen=True, slots=True)
class NormParams:
    """Parameters of a root-mean-square norm; see `NativeKernels.rms_norm`."""

    weight: Tensor
    """The norm's weight, `[hidden]`, contiguous."""
    epsilon: float
    offset: float
    """Number that is added to each element of `weight`."""
    round_first: bool
    """Whether the normalised input is rounded to the dtype before the weight is applied."""


@dataclass(frozen=True, slots=True)
class PackedLinear:
    """Sibling linears, concatenated along their outputs and packed.

    `NativeKernels.pack` packs them, or `QuantisedKernels.pack` if they are in int8.
    """

    weight: Tensor
    bias: Tensor | None
    out_features: int
    in_features: int
    is_int8: bool
    """Whether the weight is quantised to int8. Otherwise it has the kernels' dtype."""


@dataclass(frozen=True, slots=True)
class HeadParams:
    """Numbers and width of a layer's attention heads."""

    num_heads: int
    num_kv_heads: int
    head_dim: int


class NativeLayer:
    """Parameters of one layer in the memory layout that native code reads."""

    def __init__(
        self,
        norms: Sequence[NormParams],
        linears: Sequence[PackedLinear],
        heads: HeadParams,
        attention: AttentionParams,
    ) -> None:
        """Create the C struct of the parameters. It points to the original weights.

        `norms` are the norm before attention and the norm before the MLP. `linears` are the q/k/v,
        o, gate/up and down projections.
        """
        sinks = None if attention.sinks is None else attention.sinks.float()
        self._tensors = (norms, linears, sinks)  # keeps the referenced weights alive
        self._struct = _Layer(
            norms=(_Norm * 2)(*map(_norm, norms)),
            linears=(_Linear * 4)(*map(_linear, linears)),
            num_heads=heads.num_heads,
            num_kv_heads=heads.num_kv_heads,
            head_dim=heads.head_dim,
            window=attention.sliding_window or 0,
            chunk=attention.chunk_size or 0,
            scaling=attention.scaling,
            softcap=attention.softcap or 0.0,
            sinks=None if sinks is None else sinks.data_ptr(),
        )
        self.address = ctypes.addressof(self._struct)


class NativeLayers:
    """Consecutive layers with parameters that native code reads."""

    def __init__(self, layers: Sequence[NativeLayer]) -> None:
        self._layers = tuple(layers)  # keeps their structs alive
        self._addresses = pointers([layer.address for layer in layers])
        self.address = ctypes.addressof(self._addresses)

    def __len__(self) -> int:
        """Return the number of layers."""
        return len(self._layers)


def pointers(addresses: Sequence[int | None]) -> ctypes.Array[c_void_p]:
    """Return a C array of pointers. None stands for null."""
    return (c_void_p * len(addresses))(*addresses)


class LayersStep(ctypes.Structure):
    """ctypes mirror of `Step` in layer.cpp."""

    _fields_ = [
        *((name, c_void_p) for name in ("x", "y", "cosine", "sine", "slots")),
        *((name, c_void_p) for name in ("layers", "keys", "values", "lora", "attention")),
        *((name, c_int64) for name in ("num_layers", "num_tokens")),
    ]


class _Norm(ctypes.Structure):
    """ctypes mirror of `Norm` in layer.cpp."""

    _fields_ = [
        ("weight", c_void_p), ("epsilon", c_float), ("offset", c_float), ("round_first", c_int64)
    ]  # fmt: skip


class _Linear(ctypes.Structure):
    """ctypes mirror of `Linear` in layer.cpp."""

    _fields_ = [
        *((name, c_void_p) for name in ("packed", "bias")),
        *((name, c_int64) for name in ("out_features", "in_features", "is_int8")),
    ]


class _Layer(ctypes.Structure):
    """ctypes mirror of `Layer` in layer.cpp."""

    _fields_ = [
        ("norms", _Norm * 2),
        ("linears", _Linear * 4),
        *((name, c_int64) for name in ("num_heads", "num_kv_heads", "head_dim", "window", "chunk")),
        *((name, c_float) for name in ("scaling", "softcap")),
        ("sinks", c_void_p),
    ]


def _norm(norm: NormParams) -> _Norm:
    return _Norm(norm.weight.data_ptr(), norm.epsilon, norm.offset, norm.round_first)


def _linear(linear: PackedLinear) -> _Linear:
    bias = None if linear.bias is None else linear.bias.data_ptr()
    sizes = (linear.out_features, linear.in_features)
    return _Linear(linear.weight.data_ptr(), bias, *sizes, linear.is_int8)
