"""Quantises the linears of a loaded base model."""

from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Quantiser:
    """Kernels for the formats of a quantised model."""

    of_decoder: QuantisedKernels
    """Kernels for the linears of the decoder."""
    of_head: QuantisedKernels
    """Kernels for the output head."""

    def digest(self, digest: str) -> str:
        """Return the digest of the quantised model. That of its files is `digest`."""
        formats = f"{self.of_decoder.format.label}, head {self.of_head.format.label}"
        return sha256(f"{digest} {formats}, groups of {GROUP}".encode()).hexdigest()


def quantiser(source: str, kernels: Kernels, quantize: Quantize) -> Quantiser:
    """Return the kernels to quantise a model with.

    The output head is in int8 with both formats, because its rounding isn't averaged by any further
    layer.

    Raises:
        ModelRejected: `kernels` aren't the native ones, or don't support this CPU.
    """
    if isinstance(kernels, NativeKernels):
        of_decoder = kernels.quantised(Format[quantize.upper()])
        of_head = kernels.quantised(Format.INT8)
        if of_decoder is not None and of_head is not None:
            return Quantiser(of_decoder, of_head)
    raise ModelRejected(
        f"--model {source}: --quantize {quantize} needs the native kernels, on an x86 CPU with "
        "AVX2 and with --dtype bfloat16 or float32; leave --quantize out"
    )


@torch.no_grad()
def quantise_linears_(
    source: str, model: nn.Module, base: BaseModules, quantiser: Quantiser
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
            kernels = quantiser.of_head if name == base.head else quantiser.of_decoder
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
