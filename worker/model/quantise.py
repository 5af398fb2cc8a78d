"""Quantises the linears of a loaded base model."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Literal

import torch
from torch import nn

from shared.errors import ModelRejected
from worker.kernels.cpu.native import NativeKernels
from worker.kernels.cpu.quantised import GROUP, Format, QuantisedKernels, QuantisedWeight
from worker.kernels.interface import Kernels
from worker.lora.base.linear import can_join
from worker.lora.base.modules import BaseModules

Quantize = Literal["int8", "int4"]
"""Formats to which the weights of a base model can be quantised."""


def quantised_kernels(source: str, kernels: Kernels, quantize: Quantize) -> QuantisedKernels:
    """Return the kernels for weights of a format.

    Raises:
        ModelRejected: `kernels` aren't the native ones, or don't support this CPU.
    """
    format_ = Format[quantize.upper()]
    found = kernels.quantised(format_) if isinstance(kernels, NativeKernels) else None
    if found is None:
        raise ModelRejected(
            f"--model {source}: --quantize {quantize} needs the native kernels, on an x86 CPU with "
            "AVX2 and with --dtype bfloat16 or float32; leave --quantize out"
        )
    return found


@torch.no_grad()
def quantise_linears_(
    source: str, model: nn.Module, base: BaseModules, kernels: QuantisedKernels
) -> Mapping[str, QuantisedWeight]:
    """Quantise the linears that adapters may target, the output head included.

    The linears of `model` get the dequantised weights, in the model's dtype, so that whatever is
    derived from them fits the quantised model. Embeddings, norms and mixtures of experts keep their
    weights.

    Returns:
        The quantised weights, by the linears' names.

    Raises:
        ModelRejected: the model has no such linear.
    """
    found = {}
    for name in base.linears:
        linear = model.get_submodule(name)
        if can_join(linear):
            weight = kernels.quantise(linear.weight.data)  # type: ignore[arg-type]  # a Linear's
            dequantised = weight.dequantised().to(linear.weight.dtype)  # type: ignore[arg-type]
            # A new parameter, because the head may share its weight with the embedding.
            linear.weight = nn.Parameter(dequantised, requires_grad=False)
            found[name] = weight
    if not found:
        raise ModelRejected(
            f"--model {source}: {type(model).__name__} has no linears that --quantize can "
            "quantise; leave it out"
        )
    return found


def quantised_digest(digest: str, format_: Format) -> str:
    """Return the digest of a model whose files have the digest `digest`, quantised to a format."""
    return sha256(f"{digest} {format_.label} in groups of {GROUP}".encode()).hexdigest()
