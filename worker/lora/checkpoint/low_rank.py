"""The low-rank matrices of an adapter, stacked over similar linears."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class LoRAWeights:
    """Low-rank matrices of one linear, which add `b @ (a @ x)` to its output."""

    a: Tensor
    """`[r, in]`"""
    b: Tensor
    """`[out, r]`, multiplied by `scaling`."""
    scaling: float
    """PEFT's factor: alpha / r, or alpha / sqrt(r) with rsLoRA."""


@dataclass(frozen=True, slots=True, eq=False)
class LowRankStack:
    """Matrices of linears that have the same place in their layers and the same rank."""

    modules: Sequence[str]
    a: Tensor
    """`[modules, r, in]`"""
    b: Tensor
    """`[modules, out, r]`, not yet multiplied by `factor`."""
    factor: float
    """Remaining factor on B. It is `scaling`, or 1 if B already contains the scaling.

    Multiplying by it is exact.
    """
    scaling: float
    """PEFT's factor: alpha / r, or alpha / sqrt(r) with rsLoRA."""

    @property
    def rank(self) -> int:
        """Rows of each A."""
        return self.a.shape[1]


class LowRank(Mapping[str, LoRAWeights]):
    """Low-rank matrices of each targeted linear by module name, in the model's order.

    Code that handles all matrices should iterate over `stacks`: an adapter has tens of stacks but
    hundreds of linears.
    """

    def __init__(self, stacks: Sequence[LowRankStack], order: Sequence[str]) -> None:
        """Hold `stacks`; `order` lists their modules in the model's order."""
        self.stacks = stacks
        self._order = order

    def __getitem__(self, module: str) -> LoRAWeights:
        stack, index = self._places[module]
        return LoRAWeights(stack.a[index], stack.b[index] * stack.factor, stack.scaling)

    def __contains__(self, module: object) -> bool:
        return module in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._order)

    def __len__(self) -> int:
        return len(self._order)

    @property
    def num_bytes(self) -> int:
        """Bytes of all matrices."""
        return sum(stack.a.nbytes + stack.b.nbytes for stack in self.stacks)

    @cached_property
    def _places(self) -> dict[str, tuple[LowRankStack, int]]:
        """Stack and index in it of each module."""
        return {
            module: (stack, index)
            for stack in self.stacks
            for index, module in enumerate(stack.modules)
        }
