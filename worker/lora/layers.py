"""Computes the linears of a served model, including LoRA terms.

Linears that read the same input, such as q, k and v, are called siblings. They are computed by one
matrix product.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from worker.kernels.cpu.quantised import QuantisedWeight
from worker.kernels.interface import Kernels, LoRAPlan, LoRASites
from worker.lora.base.base_weight import BaseWeight, row_squares, weight_of
from worker.lora.base.linear import BaseLinear, base_linear
from worker.lora.batch import BatchCache, LoRABatch, Sequences
from worker.lora.memory.pool import LoRAPool, SiblingSites


@dataclass(slots=True)
class LoRAContext:
    """State of the current step, shared by the served modules of one model."""

    kernels: Kernels
    batches: BatchCache
    batch: LoRABatch | None = None
    """Batch of the tokens that are computed now. None if all of them use the base model.

    These are the step's tokens or, in a recurrent layer, those of one group."""
    of_groups: list[LoRABatch | None] = field(default_factory=list)
    """Batches of the step's groups, if it has several."""
    head_batch: LoRABatch | None = None
    """Batch of the output head's input rows. None if no adapter of the step changes the head."""
    head: "Siblings | None" = None
    """The output head. None until it is attached."""

    def set_batch(
        self,
        tokens: Sequences,
        head_rows: Callable[[], Sequences],
        group_sizes: Sequence[int] = (),
    ) -> None:
        """Set the batches of the next forward pass.

        `tokens` has pairs of an adapter and its number of tokens, in batch order. `head_rows`
        returns such pairs for the rows that enter the output head. It is called only if an adapter
        changes the head. `group_sizes` has the number of pairs of each group; see `entering_group`.
        """
        self.of_groups = self._batches_of_groups(tokens, group_sizes)
        self.batch = self.batches.batch_of(tokens)
        is_changed = self.batch and self.head and self.head.is_changed_by(self.batch)
        self.head_batch = self.batches.batch_of(head_rows()) if is_changed else None

    @contextmanager
    def entering_group(self, number: int) -> Iterator[None]:
        """Let the linears compute only the tokens of the group with this number."""
        whole = self.batch
        self.batch = self.of_groups[number]
        try:
            yield
        finally:
            self.batch = whole

    def _batches_of_groups(
        self, tokens: Sequences, group_sizes: Sequence[int]
    ) -> list[LoRABatch | None]:
        ends = list(accumulate(group_sizes))
        pairs = zip([0, *ends], ends, strict=False)
        return [self.batches.batch_of(tokens[start:end]) for start, end in pairs]

    def hook_of(self, name: str) -> Callable[..., None]:
        """Return a forward hook that applies side weights to the output of the module `name`.

        The module must not be a linear.
        """

        def change(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            if self.batch is not None and self.batch.side is not None:
                self.batch.check_size([name], args[0].shape[0] * args[0].shape[1])
                self.batch.side.change_output_(name, args[0], output)

        return change


@dataclass(slots=True)
class _JointOutput:
    """Output of all linears of one `Siblings` for the input `x`.

    It is kept until each linear has returned its columns."""

    x: Tensor | None = None
    columns: tuple[Tensor, ...] = ()
    num_remaining: int = 0
    """Number of siblings that haven't returned their columns yet."""


class Siblings:
    """Linears with the same input, such as q, k and v. One matrix product computes them all.

    When the model calls one of the linears with a new input, the outputs of all linears are
    computed. Each call returns only the columns of the called linear.
    """

    def __init__(
        self,
        names: Sequence[str],
        linears: Sequence[nn.Module],
        kernels: Kernels,
        quantised: Sequence[QuantisedWeight] = (),
    ) -> None:
        self.names = tuple(names)
        self._squares = _squares(linears, quantised)
        self._biases: list[Tensor | None] = [getattr(linear, "bias", None) for linear in linears]
        self.base: BaseLinear = base_linear(linears, kernels, quantised)
        self.sizes = self.base.out_features
        self._sites: SiblingSites | None = None
        self._context: LoRAContext | None = None
        self._joint = _JointOutput()

    def attach(self, pool: LoRAPool, context: LoRAContext, *, is_head: bool = False) -> None:
        """Let the adapters in `pool` change the outputs.

        `context` holds each step's batch. With `is_head`, this object becomes `context.head`.
        """
        offsets = [0, *accumulate(self.sizes)][:-1]
        self._sites = pool.sibling_sites(self.names, offsets)
        self._context = context
        if is_head:
            context.head = self

    def weight(self, index: int) -> BaseWeight | None:
        """Return the properties of a sibling's weight, or None if the weight is quantised."""
        squares = self._squares[index]
        if squares is None:
            return None
        start = sum(self.sizes[:index])
        columns = slice(start, start + self.sizes[index])
        return BaseWeight(squares, self._biases[index], lambda x: self.base.product(x)[:, columns])

    def is_changed_by(self, batch: LoRABatch) -> bool:
        """Return whether an adapter of `batch` changes the output of any of these linears."""
        assert self._sites is not None
        return batch.sites(self._sites) is not None or batch.changes(self.names)

    def output(self, index: int, x: Tensor) -> Tensor:
        """Return the output of sibling `index` for `x` `[..., in]`.

        The result is a view of the joint output. Each row is contiguous, with gaps between rows.
        """
        joint = self._joint
        if x is not joint.x:
            joint.columns = torch.split(self.joint_output(x), self.sizes, dim=-1)
            joint.x, joint.num_remaining = x, len(self.names)
        output = joint.columns[index]
        joint.num_remaining -= 1
        if joint.num_remaining == 0:
            joint.x, joint.columns = None, ()
        return output

    def joint_output(self, x: Tensor) -> Tensor:
        """Return the joint output `[..., sum of out]` for rows that match the batch's tokens."""
        y = self.base(x)
        if (batch := self._batch) is not None:
            self._change_(y, x, batch)
        return y

    def lora(self, num_rows: int) -> tuple[LoRASites, LoRAPlan] | None:
        """Return the LoRA kernels' arguments for `num_rows` rows.

        Returns None if no adapter of the batch has LoRA weights for these linears.
        """
        if (batch := self._batch) is None:
            return None
        assert self._sites is not None
        sites = batch.sites(self._sites)
        if sites is None:
            return None
        batch.check_size(self.names, num_rows)
        return sites, batch.plan

    @property
    def has_adapters(self) -> bool:
        """Whether any row of the current batch uses an adapter."""
        return self._batch is not None

    @property
    def has_side_weights(self) -> bool:
        """Whether an adapter in the current batch has side weights. `lora` leaves them out."""
        batch = self._batch
        return batch is not None and batch.side is not None

    @property
    def _batch(self) -> LoRABatch | None:
        """Batch of the current input rows. None if all of these rows use the base model."""
        context = self._context
        if context is None:
            return None
        return context.head_batch if context.head is self else context.batch

    def _change_(self, y: Tensor, x: Tensor, batch: LoRABatch) -> None:
        """Change `y`, the base's output for `x`, in place: add LoRA terms, apply side weights."""
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


def _squares(
    linears: Sequence[nn.Module], quantised: Sequence[QuantisedWeight]
) -> list[Tensor | None]:
    """Return, for each linear, the squared length of each row of the linear's weight."""
    if quantised:
        dtype: Any = linears[0].weight.dtype
        return [row_squares(weight.dequantised(dtype)) for weight in quantised]
    weights = [weight_of(linear) for linear in linears]
    return [None if weight is None else row_squares(weight) for weight in weights]


class ServedLinear(nn.Module):
    """Replaces a base linear. Returns the replaced linear's columns of the siblings' joint output.

    Attributes that this module doesn't have are looked up in the replaced linear.
    """

    def __init__(self, base_layer: nn.Module, siblings: Siblings, index: int) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.siblings = siblings
        self._index = index

    def forward(self, x: Tensor) -> Tensor:
        """Map `[..., in]` to `[..., out]`."""
        return self.siblings.output(self._index, x)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the replaced linear, such as `weight` or `in_features`."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base_layer"), name)


def weights_of(served: Iterable[Siblings], names: Container[str]) -> dict[str, BaseWeight]:
    """Return the weight properties of the unquantised linears in `names`, by name."""
    return {
        name: weight
        for siblings in served
        for index, name in enumerate(siblings.names)
        if name in names and (weight := siblings.weight(index)) is not None
    }


@torch.inference_mode()
def serve_linears(
    model: nn.Module,
    groups: Sequence[Sequence[str]],
    kernels: Kernels,
    quantised: dict[str, QuantisedWeight] | None = None,
) -> list[Siblings]:
    """Replace each linear named in `groups` with a `ServedLinear`. Return each group's `Siblings`.

    The linears of a group must read the same input. `quantised` has the quantised weights by the
    linears' names. In each group, either all linears are quantised, or none is. A group's weights
    are removed from `quantised` when they are packed, so that the memory isn't needed twice.
    """
    quantised = {} if quantised is None else quantised
    served = []
    for names in groups:
        linears = [model.get_submodule(name) for name in names]
        weights = [quantised.pop(name) for name in names if name in quantised]
        siblings = Siblings(names, linears, kernels, weights)
        for index, (name, linear) in enumerate(zip(names, linears, strict=True)):
            model.set_submodule(name, ServedLinear(linear, siblings, index))
        served.append(siblings)
    return served
