"""The linears of a served model: computed with their siblings, with each token's LoRA term."""

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from worker.kernels.interface import Kernels, LoRAPlan, LoRASites
from worker.lora.base.base_weight import BaseWeight, row_squares, weight_of
from worker.lora.base.linear import BaseLinear, base_linear
from worker.lora.batch import LoRABatch, Sequences, build_batch
from worker.lora.memory.pool import LoRAPool, SiblingSites


@dataclass(slots=True)
class LoRAContext:
    """What the modules of one model share."""

    kernels: Kernels
    batch: LoRABatch | None = None
    """Set before each forward, for exactly its tokens; None computes the base model."""
    head_batch: LoRABatch | None = None
    """The same for the rows that the output head gets, which are fewer."""
    head: "Siblings | None" = None
    """The output head, once it is attached."""

    def set_batch(
        self, pool: LoRAPool, tokens: Sequences, head_rows: Callable[[], Sequences]
    ) -> None:
        """Prepare the next forward: over `tokens`, of which the head gets `head_rows`."""
        self.batch = build_batch(pool, tokens)
        is_changed = self.batch and self.head and self.head.is_changed_by(self.batch)
        self.head_batch = build_batch(pool, head_rows()) if is_changed else None

    def hook_of(self, name: str) -> Callable[..., None]:
        """The forward hook of a module other than a linear, for adapters that change its output."""

        def change(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            if self.batch is not None and self.batch.side is not None:
                self.batch.check_size([name], args[0].shape[0] * args[0].shape[1])
                self.batch.side.change_output_(name, args[0], output)

        return change


class Siblings:
    """Linears that read the same input, as q, k and v do: one product serves all.

    The first that is called computes all, and the others hand out their part.
    """

    def __init__(
        self, names: Sequence[str], linears: Sequence[nn.Module], kernels: Kernels
    ) -> None:
        self.names = tuple(names)
        weights = [weight_of(linear) for linear in linears]
        self._squares = [None if weight is None else row_squares(weight) for weight in weights]
        self._biases: list[Tensor | None] = [getattr(linear, "bias", None) for linear in linears]
        self.base: BaseLinear = base_linear(linears, kernels)
        self.sizes = self.base.out_features
        self._sites: SiblingSites | None = None
        self._context: LoRAContext | None = None
        self._input: Tensor | None = None
        self._outputs: tuple[Tensor, ...] = ()
        self._num_left = 0

    def attach(self, pool: LoRAPool, context: LoRAContext, *, is_head: bool = False) -> None:
        """Add the LoRA terms of what is resident in `pool` from now on, as `context` says."""
        offsets = [0, *accumulate(self.sizes)][:-1]
        self._sites = pool.sibling_sites(self.names, offsets)
        self._context = context
        if is_head:
            context.head = self

    def weight(self, index: int) -> BaseWeight | None:
        """What can be asked of the weight of sibling `index`; None if it is quantised."""
        squares = self._squares[index]
        if squares is None:
            return None
        start = sum(self.sizes[:index])
        columns = slice(start, start + self.sizes[index])
        return BaseWeight(squares, self._biases[index], lambda x: self.base.product(x)[:, columns])

    def is_changed_by(self, batch: LoRABatch) -> bool:
        """Whether an adapter of the batch changes any of these outputs."""
        assert self._sites is not None
        return batch.sites(self._sites) is not None or batch.changes(self.names)

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
        if (batch := self._batch) is not None:
            self._change_(y, x, batch)
        return y

    def _change_(self, y: Tensor, x: Tensor, batch: LoRABatch) -> None:
        """Make of the base's `y` what the batch's adapters make of it."""
        num_rows = y.numel() // y.shape[-1]
        lora = self.lora(num_rows)
        if lora is None and batch.side is None:
            return
        assert self._context is not None
        x, y = x.reshape(-1, x.shape[-1]), y.view(-1, y.shape[-1])
        if lora is not None:
            self._context.kernels.add_lora_(y, x, *lora)
        if batch.side is not None:
            batch.check_size(self.names, num_rows)
            batch.side.change_linears_(self.names, self.sizes, x, y)

    def lora(self, num_rows: int) -> tuple[LoRASites, LoRAPlan] | None:
        """What adapters add to the outputs of so many rows; None if they add nothing."""
        if (batch := self._batch) is None:
            return None
        assert self._sites is not None
        sites = batch.sites(self._sites)
        if sites is None:
            return None
        batch.check_size(self.names, num_rows)
        return sites, batch.plan

    @property
    def is_changed(self) -> bool:
        """Whether an adapter of the forward changes outputs in another way than `lora` tells."""
        batch = self._batch
        return batch is not None and batch.side is not None

    @property
    def _batch(self) -> LoRABatch | None:
        """The rows of the forward that these linears get."""
        context = self._context
        if context is None:
            return None
        return context.head_batch if context.head is self else context.batch


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


def weights_of(served: Iterable[Siblings], names: Container[str]) -> dict[str, BaseWeight]:
    """What can be asked of the weights of the linears `names`; quantised ones are left out."""
    return {
        name: weight
        for siblings in served
        for index, name in enumerate(siblings.names)
        if name in names and (weight := siblings.weight(index)) is not None
    }


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
