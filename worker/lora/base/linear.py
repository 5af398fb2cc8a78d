"""Linears of the base model, joined into one matrix product where possible."""

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor, nn

from worker.kernels.cpu.native import NativeKernels
from worker.kernels.cpu.quantised import QuantisedKernels, QuantisedWeight, joined
from worker.kernels.interface import Kernels
from worker.lora.base.base_weight import weight_of

PACKED_ROWS = 32
"""Number of input rows for which oneDNN optimises the packed layout. Other numbers work, too."""


class BaseLinear(Protocol):
    """One or more linears that read the same input."""

    out_features: list[int]
    """Output width of each linear."""
    packed_bytes: int
    """Memory of the packed weight in bytes; 0 if the linears themselves hold their weights."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return all outputs for `x` `[..., in]`, joined in a new tensor `[..., sum of out]`."""

    def product(self, x: Tensor) -> Tensor:
        """Compute the outputs without the biases."""


def can_join(linear: nn.Module) -> bool:
    """Return whether the linear's weight can be joined with the weights of other linears."""
    return type(linear) is nn.Linear


@torch.no_grad()
def dequantise_(linear: nn.Module, weight: QuantisedWeight) -> None:
    """Set the weight of a linear to a quantised weight's values, in the linear's dtype."""
    values = weight.dequantised(linear.weight.dtype)  # type: ignore[arg-type]  # a Linear's
    linear.weight = nn.Parameter(values, requires_grad=False)


def drop_weight(linear: nn.Module) -> None:
    """Free the memory of a linear's weight. The shape stays available."""
    empty = torch.empty_like(linear.weight, device="meta")  # type: ignore[arg-type]  # a Linear's
    linear.weight = nn.Parameter(empty, requires_grad=False)


def base_linear(
    linears: Sequence[nn.Module], kernels: Kernels, quantised: Sequence[QuantisedWeight] = ()
) -> BaseLinear:
    """Join linears with the same input in the fastest layout for `kernels` and the CPU.

    If this layout is packed, `linears` keep only the shapes of their weights. If a linear can't be
    joined, it must be the only item of `linears`. `quantised` holds the quantised weight of each
    linear, for native kernels.
    """
    plain = [linear for linear in linears if type(linear) is nn.Linear]
    if len(plain) < len(linears):
        assert len(linears) == 1
        return _SingleModule(linears[0])
    if isinstance(kernels, NativeKernels):
        if quantised and (found := kernels.quantised) is not None:
            return _QuantisedPacked(plain, found, found.pack(joined(quantised)))
        if kernels.can_pack(plain[0].weight):
            return NativePacked(plain, kernels, kernels.pack(_joined_weight(plain)))
    if _onednn_can_pack(plain[0].weight):
        return _OneDNNPacked(plain)
    return _Joined(plain)


class _SingleModule:
    """One linear that can't be joined, such as a Conv1D. Its own module computes the output."""

    packed_bytes = 0

    def __init__(self, linear: nn.Module) -> None:
        self._linear = linear
        # GPT-2's Conv1D names its output width nf.
        self.out_features = [int(getattr(linear, "out_features", 0) or linear.nf)]  # type: ignore[arg-type]

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = self._linear(x)
        return y

    def product(self, x: Tensor) -> Tensor:
        weight = weight_of(self._linear)
        assert weight is not None, "a quantised weight has no product"
        return F.linear(x, weight)


class _Joined:
    """Linears with their weights concatenated into one matrix."""

    packed_bytes = 0

    def __init__(self, linears: Sequence[nn.Linear]) -> None:
        self.out_features = [linear.out_features for linear in linears]
        self._weight = _joined_weight(linears)
        self._bias = _joined_bias(linears)
        parts = torch.split(self._weight, self.out_features)
        for linear, part in zip(linears, parts, strict=True):  # each keeps its weight as a view
            linear.weight = nn.Parameter(part, requires_grad=False)

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self._weight, self._bias)

    def product(self, x: Tensor) -> Tensor:
        return F.linear(x, self._weight)


class NativePacked:
    """Joined linears with a weight in the packed layout of the native kernels."""

    is_int8 = False
    """Whether the weight is in int8, not in the kernels' dtype."""

    def __init__(
        self,
        linears: Sequence[nn.Linear],
        kernels: NativeKernels | QuantisedKernels,
        weight: Tensor,
    ) -> None:
        """Take over the weights of `linears`. `weight` is their joined weight, packed."""
        self.out_features = [linear.out_features for linear in linears]
        self.in_features = linears[0].in_features
        self._kernels = kernels
        self.bias = _joined_bias(linears)
        self.weight = weight
        self.packed_bytes = weight.nbytes
        for linear in linears:
            drop_weight(linear)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the outputs of all linears for `x` `[..., in]`, joined to `[..., sum of out]`."""
        return self._kernels.linear(x, self.weight, self.bias, sum(self.out_features))

    def product(self, x: Tensor) -> Tensor:
        """Compute the outputs without the biases."""
        return self._kernels.linear(x, self.weight, None, sum(self.out_features))


class _QuantisedPacked(NativePacked):
    """Joined linears with a packed, quantised weight."""

    is_int8 = True

    def __init__(
        self, linears: Sequence[nn.Linear], kernels: QuantisedKernels, weight: Tensor
    ) -> None:
        super().__init__(linears, kernels, weight)
        self._unpack = kernels.unpack

    def product(self, x: Tensor) -> Tensor:
        """Compute the outputs without the biases. Unlike in `__call__`, `x` isn't quantised."""
        weight = self._unpack(self.weight, sum(self.out_features), self.in_features)
        return F.linear(x.float(), weight.dequantised()).to(x.dtype)


class _OneDNNPacked:
    """Joined linears in oneDNN's packed layout.

    For tens of input rows, this layout is up to twice as fast as the ordinary one.
    """

    def __init__(self, linears: Sequence[nn.Linear]) -> None:
        self.out_features = [linear.out_features for linear in linears]
        self._bias = _joined_bias(linears)
        weight = _joined_weight(linears)
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_ROWS)
        self.packed_bytes = weight.nbytes
        for linear in linears:
            drop_weight(linear)

    def __call__(self, x: Tensor) -> Tensor:
        return self._multiply(x, self._bias)

    def product(self, x: Tensor) -> Tensor:
        return self._multiply(x, None)

    def _multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, bias, "none", [], "")
        return y


def _onednn_can_pack(weight: Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        and weight.dtype is torch.bfloat16
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def _joined_weight(linears: Sequence[nn.Linear]) -> Tensor:
    weights = [linear.weight.data for linear in linears]
    return weights[0] if len(weights) == 1 else torch.cat(weights)


def _joined_bias(linears: Sequence[nn.Linear]) -> Tensor | None:
    biases = [linear.bias for linear in linears]
    like = next((bias for bias in biases if bias is not None), None)
    if like is None:
        return None
    sizes = [linear.out_features for linear in linears]
    return torch.cat(
        [
            like.new_zeros(size) if bias is None else bias
            for size, bias in zip(sizes, biases, strict=True)
        ]
    )
