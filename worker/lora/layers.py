"""The linears of a served model: computed with their siblings, with each token's LoRA term."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from worker.kernels.interface import Kernels, LoRAPlan, LoRASites
from worker.lora.batch import LoRABatch
from worker.lora.linear import BaseLinear, base_linear
from worker.lora.pool import LoRAPool, SiblingSites


@dataclass(slots=True)
class LoRAContext:
    """What the linears of one model share."""

    kernels: Kernels
    batch: LoRABatch | None = None
    """Set before each forward, for exactly its tokens; None computes the base model."""


class Siblings:
    """Linears that read the same input, as q, k and v do: one product serves all.

    The first that is called computes all, and the others hand out their part.
    """

    def __init__(
        self, names: Sequence[str], linears: Sequence[nn.Module], kernels: Kernels
    ) -> None:
        self.names = tuple(names)
        self.base: BaseLinear = base_linear(linears, kernels)
        self.sizes = self.base.out_features
        self._sites: SiblingSites | None = None
        self._context: LoRAContext | None = None
        self._input: Tensor | None = None
        self._outputs: tuple[Tensor, ...] = ()
        self._num_left = 0

    def attach(self, pool: LoRAPool, context: LoRAContext) -> None:
        """Add the LoRA terms of what is resident in `pool` from now on, as `context` says."""
        offsets = [0, *accumulate(self.sizes)][:-1]
        self._sites = pool.sibling_sites(self.names, offsets)
        self._context = context

    def part(self, index: int, x: Tensor) -> Tensor:
        """The output of sibling `index` for `x` `[..., in]`: a view, contiguous in its rows."""
        if x is not self._input:
            self._outputs = torch.split(self.whole(x), self.sizes, dim=-1)
            self._input, self._num_left = x, len(self.names)
        output = self._outputs[index]
        self._num_left -= 1
        if self._num_left == 0:
            self._input, self._outputs = None, ()
        return output

    def whole(self, x: Tensor) -> Tensor:
        """All outputs side by side, `[..., sum of out]`; rows are the batch's tokens in order."""
        y = self.base(x)
        lora = self.lora(y.numel() // y.shape[-1])
        if lora is not None:
            assert self._context is not None
            rows = x.reshape(-1, x.shape[-1])
            self._context.kernels.add_lora_(y.view(-1, y.shape[-1]), rows, *lora)
        return y

    def lora(self, num_rows: int) -> tuple[LoRASites, LoRAPlan] | None:
        """What adapters add to the outputs of so many rows; None if they add nothing."""
        if self._context is None or (batch := self._context.batch) is None:
            return None
        assert self._sites is not None
        sites = batch.sites(self._sites)
        if sites is None:
            return None
        if num_rows != batch.num_tokens:
            raise RuntimeError(
                f"{', '.join(self.names)} got {num_rows} rows in a batch of "
                f"{batch.num_tokens} tokens"
            )
        return sites, batch.plan


class ServedLinear(nn.Module):
    """One of some siblings, in the place of the base model's linear. Reads like that one."""

    def __init__(self, base_layer: nn.Module, siblings: Siblings, index: int) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.siblings = siblings
        self._index = index

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        return self.siblings.part(self._index, x)

    def __getattr__(self, name: str) -> Any:
        """Model code may ask for `weight`, `in_features` and the like."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base_layer"), name)


@torch.inference_mode()
def serve_linears(
    model: nn.Module, groups: Sequence[Sequence[str]], kernels: Kernels
) -> list[Siblings]:
    """Put a `ServedLinear` in the place of each linear named in `groups` of siblings."""
    served = []
    for names in groups:
        linears = [model.get_submodule(name) for name in names]
        siblings = Siblings(names, linears, kernels)
        for index, (name, linear) in enumerate(zip(names, linears, strict=True)):
            model.set_submodule(name, ServedLinear(linear, siblings, index))
        served.append(siblings)
    return served
