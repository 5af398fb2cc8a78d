"""Puts the LoRA term into a transformers model: wraps every linear that adapters may target."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from worker.kernels.reference_lora import LoRABlock, add_lora_
from worker.lora.batch import LoRABatch
from worker.lora.modules import BaseModules
from worker.lora.pool import LoRAPool, Site


@dataclass(slots=True)
class LoRAContext:
    """What the wrapped linears of one model share."""

    batch: "LoRABatch | _CallCounter | None" = None
    """Set before each forward, for exactly its tokens; None computes the base model."""


class LoRALinear(nn.Module):
    """A base linear that adds each token's own LoRA term. Reads like the base layer otherwise."""

    def __init__(self, base_layer: nn.Module, site: Site, context: LoRAContext) -> None:
        super().__init__()
        self.base_layer = base_layer
        self._site = site
        self._context = context

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[..., in]` to `[..., out]`; the rows are the batch's tokens in order."""
        y: torch.Tensor = self.base_layer(x)
        batch = self._context.batch
        if batch is not None and (blocks := batch.blocks(self._site)):
            rows = x.reshape(-1, x.shape[-1])
            if len(rows) != batch.num_tokens:
                raise RuntimeError(
                    f"{self.base_layer} got {len(rows)} rows in a batch of "
                    f"{batch.num_tokens} tokens"
                )
            add_lora_(y.view(-1, y.shape[-1]), rows, blocks)
        return y

    def __getattr__(self, name: str) -> Any:
        """Model code may ask for `weight`, `in_features` and the like."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base_layer"), name)


def wrap_modules(model: nn.Module, base: BaseModules, pool: LoRAPool) -> LoRAContext:
    """Replace each of the base's linears in `model` by a `LoRALinear`, under the same name."""
    context = LoRAContext()
    for name in base.linears:
        wrapped = LoRALinear(model.get_submodule(name), pool.sites[name], context)
        model.set_submodule(name, wrapped)
    return context


def modules_not_called_once(
    pool: LoRAPool, context: LoRAContext, forward: Callable[[], object]
) -> list[str]:
    """The wrapped linears that one `forward` of the model doesn't call exactly once.

    Adapters on these would be computed wrongly or not at all: some models multiply by a
    module's weight without calling it.
    """
    counter = _CallCounter()
    context.batch = counter
    try:
        forward()
    finally:
        context.batch = None
    return [name for name, site in pool.sites.items() if counter.calls[site] != 1]


class _CallCounter:
    """Stands in for a batch, and computes nothing."""

    num_tokens = 0

    def __init__(self) -> None:
        self.calls: Counter[Site] = Counter()

    def blocks(self, site: Site) -> list[LoRABlock]:
        self.calls[site] += 1
        return []
