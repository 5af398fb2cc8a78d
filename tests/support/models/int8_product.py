"""The product with int8 weights in plain torch, with the served bits or with exact inputs."""

from collections.abc import Callable

import pytest
import torch
from engines import load
from kernel_sets import linear_kernels
from torch import Tensor
from torch.nn.functional import linear, pad
from transformers import PreTrainedModel

from worker.kernels.cpu.native import NativeKernels
from worker.kernels.cpu.quantised import GROUP, QuantisedKernels, QuantisedWeight
from worker.model.fused_layer import LayerRun
from worker.model.loader import LoadedModel

Product = Callable[[Tensor, QuantisedWeight, Tensor | None], Tensor]
"""Function of the inputs, a weight and a bias; see `rounded_product`."""
LARGEST = 127
"""Largest magnitude of a multiple of a scale."""
_LEAST_SCALE = 1e-37
"""Groups with a smaller scale count as zeros."""


def grouped(x: Tensor) -> Tensor:
    """Return `x`, `[n, k]`, as `[n, groups, GROUP]`, padded with zeros."""
    return pad(x, (0, -x.shape[-1] % GROUP)).unflatten(-1, (-1, GROUP))


def multiples_of(x: Tensor, scales: Tensor) -> Tensor:
    """Return values in groups, `[..., GROUP]`, as the nearest multiples of the groups' scales."""
    scales = scales[..., None]
    factors = torch.where(scales < _LEAST_SCALE, torch.zeros_like(scales), 1 / scales)
    return (x * factors).round().clamp(-LARGEST, LARGEST)


def rounded_product(x: Tensor, weight: QuantisedWeight, bias: Tensor | None) -> Tensor:
    """Return `x w^T + bias` with the bits of the native product, which rounds `x` to int8.

    Sums of a group are integers, which float32 represents exactly. The groups are added in their
    order, each with one rounding.

    Args:
        x: `[rows, in]`, in float32 or bfloat16.
        weight: `[out, in]`.
        bias: `[out]` in the dtype of `x`, or None.

    Returns:
        `[rows, out]` in the dtype of `x`.
    """
    groups = grouped(x.float())
    scales = groups.abs().amax(-1) / LARGEST
    inputs, weights = multiples_of(groups, scales), grouped(weight.values.float())
    num_out = len(weight.values)
    sums = torch.zeros(len(x), num_out) if bias is None else bias.float().expand(len(x), num_out)
    for group in range(groups.shape[1]):
        products = (inputs[:, group].double() @ weights[:, group].double().t()).float()
        scaled = products * scales[:, group, None]
        sums = _multiply_add(scaled, weight.scales[:, group].float(), sums)
    return sums.to(x.dtype)


def exact_product(x: Tensor, weight: QuantisedWeight, bias: Tensor | None) -> Tensor:
    """Return `x w^T + bias` without rounding `x`; see `rounded_product`."""
    exact = linear(
        x.double(), weight.dequantised().double(), None if bias is None else bias.double()
    )
    return exact.to(x.dtype)


def replace_product(patch: pytest.MonkeyPatch, product: Product) -> None:
    """Let quantised models compute their layers by modules, and their linears by `product`."""

    def multiply(
        kernels: QuantisedKernels, x: Tensor, packed: Tensor, bias: Tensor | None, num_out: int
    ) -> Tensor:
        weight = kernels.unpack(packed, num_out, x.shape[-1])
        return product(x.flatten(0, -2), weight, bias).unflatten(0, x.shape[:-1])

    patch.setattr(QuantisedKernels, "linear", multiply)
    patch.setattr(LayerRun, "has_side_weights", True)


def load_quantised(model: PreTrainedModel, kernels: NativeKernels | None = None) -> LoadedModel:
    """Prepare `model` for serving, with linears quantised to int8."""
    return load(model, kernels=kernels or linear_kernels(model.dtype), quantize="int8")


def _multiply_add(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Return `a * b + c` of float32 tensors, rounded once.

    float64 represents the product exactly. Their sum is rounded to odd, so that the rounding to
    float32 that follows gives the bits of a single one (Boldo and Melquiond 2008).
    """
    product, c = a.double() * b.double(), c.double()
    total = product + c
    rest = total - product
    error = (product - (total - rest)) + (c - rest)
    is_even = total.view(torch.int64) & 1 == 0
    towards = torch.nextafter(total, error.sign() * torch.inf)
    return torch.where((error != 0) & is_even, towards, total).float()
