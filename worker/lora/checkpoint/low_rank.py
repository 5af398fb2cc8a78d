"""The low-rank matrices of an adapter, many linears' at a time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class LoRAWeights:
    """One targeted linear: its output changes by `b @ (a @ x)`."""

    a: Tensor
    """`[r, in]`"""
    b: Tensor
    """`[out, r]`, `scaling` multiplied in."""
    scaling: float
    """What PEFT multiplies by: alpha / r, or alpha / sqrt(r) with rsLoRA."""


@dataclass(frozen=True, slots=True, eq=False)
class LowRankStack:
    """Linears at the same place in their layers, whose matrices differ in nothing but numbers."""

    modules: Sequence[str]
    a: Tensor
    """`[modules, r, in]`"""
    b: Tensor
    """`[modules, out, r]`"""
    factor: float
    """B is to be multiplied by it, which is exact: `scaling`, or 1 if that is in B."""
    scaling: float

    @property
    def rank(self) -> int:
        """Rows of each A."""
        return self.a.shape[1]


class LowRank(Mapping[str, LoRAWeights]):
    """What each targeted linear has, by its name, in the model's order.

    Whoever goes over all of it goes over `stacks`: there are tens of those, and hundreds of
    linears.
    """

    def __init__(self, stacks: Sequence[LowRankStack], order: Sequence[str]) -> None:
        """`order` has the modules of all `stacks`."""
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
        """Of all matrices."""
        return sum(stack.a.nbytes + stack.b.nbytes for stack in self.stacks)

    @cached_property
    def _places(self) -> dict[str, tuple[LowRankStack, int]]:
        return {
            module: (stack, index)
            for stack in self.stacks
            for index, module in enumerate(stack.modules)
        }
