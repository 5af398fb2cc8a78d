"""The low-rank matrices of an adapter. Matrices of similar linears are stacked."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class LoRAWeights:
    """Low-rank matrices of one linear. They add `b @ (a @ x)` to the output for input `x`."""

    a: Tensor
    """Matrix A, `[r, in]`."""
    b: Tensor
    """Matrix B, `[out, r]`, already multiplied by `scaling`."""
    scaling: float
    """PEFT's factor: alpha / r, or alpha / sqrt(r) with rsLoRA."""


@dataclass(frozen=True, slots=True, eq=False)
class LowRankStack:
    """Stacked matrices of linears with the same place in their layers and the same rank."""

    modules: Sequence[str]
    a: Tensor
    """Matrices A of all linears, `[modules, r, in]`."""
    b: Tensor
    """Matrices B of all linears, `[modules, out, r]`, not yet multiplied by `factor`."""
    factor: float
    """Factor by which `b` must still be multiplied.

    It equals `scaling` if multiplying by `scaling` is exact, as for powers of two. Otherwise it is
    1."""
    scaling: float
    """PEFT's factor: alpha / r, or alpha / sqrt(r) with rsLoRA."""

    @property
    def rank(self) -> int:
        """Number of rows of each A."""
        return self.a.shape[1]


class LowRank(Mapping[str, LoRAWeights]):
    """Maps the names of targeted linears, in the model's order, to their low-rank matrices.

    Code that handles all matrices should iterate over `stacks`, because an adapter has tens of
    stacks but hundreds of linears.
    """

    def __init__(self, stacks: Sequence[LowRankStack], order: Sequence[str]) -> None:
        """Create the mapping from `stacks`. `order` lists all modules in the model's order."""
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
        """Total size of the matrices in bytes."""
        return sum(stack.a.nbytes + stack.b.nbytes for stack in self.stacks)

    @cached_property
    def _places(self) -> dict[str, tuple[LowRankStack, int]]:
        """Each module's stack and the module's index in that stack."""
        return {
            module: (stack, index)
            for stack in self.stacks
            for index, module in enumerate(stack.modules)
        }
