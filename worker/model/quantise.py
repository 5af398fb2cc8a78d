"""Quantises the linears of a loaded base model."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Literal

import torch
from torch import nn

from shared.errors import ModelRejected
from worker.kernels.cpu.int8 import FORMAT, Int8Kernels, Int8Weight
from worker.kernels.cpu.native import NativeKernels
from worker.kernels.interface import Kernels
from worker.lora.base.linear import can_join
from worker.lora.base.modules import BaseModules

Quantize = Literal["int8"]
"""Formats to which the weights of a base model can be quantised."""


def int8_kernels(source: str, kernels: Kernels) -> Int8Kernels:
    """Return the kernels for int8 weights.

    Raises:
        ModelRejected: `kernels` aren't the native ones, or don't support this CPU.
    """
    found = kernels.int8 if isinstance(kernels, NativeKernels) else None
    if found is None:
        raise ModelRejected(
            f"--model {source}: --quantize int8 needs the native kernels, on an x86 CPU with AVX2 "
            "and with --dtype bfloat16 or float32; leave --quantize out"
        )
    return found


@torch.no_grad()
def quantise_linears_(
    source: str, model: nn.Module, base: BaseModules, kernels: Int8Kernels
) -> Mapping[str, Int8Weight]:
    """Quantise the linears that adapters may target, the output head included.

    The linears of `model` get the dequantised weights, in the model's dtype, so that whatever is
    derived from them fits the quantised model. Embeddings, norms and mixtures of experts keep their
    weights.

    Returns:
        The int8 weights, by the linears' names.

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
            f"--model {source}: {type(model).__name__} has no linears that --quantize int8 can "
            "quantise; leave it out"
        )
    return found


def quantised_digest(digest: str) -> str:
    """Return the digest of a model whose files have the digest `digest`, quantised to int8."""
    return sha256(f"{digest} {FORMAT}".encode()).hexdigest()
