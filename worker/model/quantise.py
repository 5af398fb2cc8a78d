"""Quantises the linears of a loaded base model to int8."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, Literal

import torch
from torch import nn

from shared.errors import ModelRejected
from worker.kernels.cpu.native import NativeKernels
from worker.kernels.cpu.quantised import GROUP, QuantisedKernels, QuantisedWeight
from worker.kernels.interface import Kernels
from worker.lora.base.linear import can_join, dequantise_, drop_weight
from worker.lora.base.modules import BaseModules

Quantize = Literal["int8"]
"""Types to which the weights of a base model can be quantised."""


def quantised_digest(digest: str) -> str:
    """Return the digest of a quantised model, computed from the `digest` of its files."""
    return sha256(f"{digest} int8, head int8, groups of {GROUP}".encode()).hexdigest()


def quantising_kernels(source: str, kernels: Kernels) -> QuantisedKernels:
    """Return the kernels that quantise weights.

    Raises:
        ModelRejected: `kernels` contains no such kernels for this CPU and dtype.
    """
    if isinstance(kernels, NativeKernels) and kernels.quantised is not None:
        return kernels.quantised
    raise ModelRejected(
        f"--model {source}: --quantize int8 needs the native kernels, on an x86 CPU with AVX2 and "
        "with --dtype bfloat16 or float32; leave --quantize out"
    )


@torch.no_grad()
def quantise_linears_(
    source: str,
    model: nn.Module,
    base: BaseModules,
    kernels: QuantisedKernels,
    quantised: dict[str, QuantisedWeight],
) -> None:
    """Quantise the linears that adapters may target, the output head included.

    `quantised` maps the linears' names to quantised weights. At first, it has the weights that were
    quantised when they were read. The function adds the other weights. The linears of `model` keep
    only the shapes of their weights. Embeddings, norms and mixtures of experts keep their weights.

    Raises:
        ModelRejected: the model has no such linear.
    """
    for name in base.linears:
        linear = model.get_submodule(name)
        if can_join(linear) and name not in quantised:
            quantised[name] = kernels.quantise(linear.weight.data)  # type: ignore[arg-type]  # a Linear's
            drop_weight(linear)
    if not quantised:
        raise ModelRejected(
            f"--model {source}: {type(model).__name__} has no linears that --quantize can "
            "quantise; leave it out"
        )


@contextmanager
def lending_weights(model: nn.Module, quantised: dict[str, QuantisedWeight]) -> Iterator[None]:
    """Let each linear named in `quantised` have its dequantised weight while the linear is called.

    The model can therefore run without a copy of all weights in its dtype. When the context ends,
    the linears that are still in `quantised` get their dequantised weights permanently. Linears
    that were removed from `quantised` in the meantime have no weight.
    """
    handles = [
        handle for name in quantised for handle in _lend(name, model.get_submodule(name), quantised)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    for name in list(quantised):
        dequantise_(model.get_submodule(name), quantised.pop(name))


def _lend(name: str, linear: nn.Module, quantised: Mapping[str, QuantisedWeight]) -> list[Any]:
    return [
        linear.register_forward_pre_hook(lambda *_: dequantise_(linear, quantised[name])),
        linear.register_forward_hook(lambda *_: drop_weight(linear)),
    ]
