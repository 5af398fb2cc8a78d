"""Quantises the linears of a loaded base model to int8."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Literal

import torch
from torch import nn

from shared.errors import ModelRejected
from worker.kernels.cpu.native import NativeKernels
from worker.kernels.cpu.quantised import GROUP, QuantisedKernels, QuantisedWeight
from worker.kernels.interface import Kernels
from worker.lora.base.linear import can_join
from worker.lora.base.modules import BaseModules

Quantize = Literal["int8"]
"""Type that the weights of a base model can be quantised to."""


def quantised_digest(digest: str) -> str:
    """Return the quantised model's digest. It depends on the files' digest and the type."""
    return sha256(f"{digest} int8, head int8, groups of {GROUP}".encode()).hexdigest()


def quantising_kernels(source: str, kernels: Kernels) -> QuantisedKernels:
    """Return the kernels to quantise with. Raises ModelRejected if the CPU has none."""
    if isinstance(kernels, NativeKernels) and kernels.quantised is not None:
        return kernels.quantised
    raise ModelRejected(
        f"--model {source}: --quantize int8 needs the native kernels, on an x86 CPU with AVX2 and "
        "with --dtype bfloat16 or float32; leave --quantize out"
    )


@torch.no_grad()
def quantise_linears_(
    source: str, model: nn.Module, base: BaseModules, kernels: QuantisedKernels
) -> Mapping[str, QuantisedWeight]:
    """Quantise the linears that adapters may target, the output head included.

    The linears of `model` keep weights in the model's dtype, but with the quantised values, so that
    anything computed from these weights agrees with the quantised model. Embeddings, norms and
    mixtures of experts keep their weights.

    Returns the quantised weights, by the linears' names.

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
