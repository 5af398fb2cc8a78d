"""Renames an adapter's weights from its checkpoint's module names to the served model's names."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.lora.base.dialect import Dialect
from worker.lora.base.modules import BaseModules
from worker.lora.base.stored_view import stored_view
from worker.lora.checkpoint.low_rank import LowRank, LowRankStack
from worker.lora.checkpoint.safetensors_header import Header
from worker.lora.checkpoint.tensor_names import parse_name
from worker.lora.side.weights import FullLinear, SideTerm, SideWeights


def trained_modules_of(header: Header, base: BaseModules) -> BaseModules:
    """Return the modules of `base` under the names that an adapter's file uses."""
    dialect = base.dialect
    if dialect is None:
        return base
    keys = map(parse_name, header.tensors)
    is_stored = any(key is not None and dialect.served(key.module) for key in keys)
    return stored_view(base, dialect) if is_stored else base


@dataclass(frozen=True, slots=True)
class ServedNames:
    """Renames an adapter's weights from the module names in `dialect` to the names in `base`.

    A low-rank term on a module that consists of several served modules becomes a term on each of
    them. These terms share A, and each has its module's rows of B.
    """

    base: BaseModules
    dialect: Dialect

    def low_rank(self, matrices: LowRank) -> LowRank:
        """Return the low-rank matrices under the served linears' names, as views of `matrices`."""
        stacks = [served for stack in matrices.stacks for served in self._stacks(stack)]
        names = {name for stack in stacks for name in stack.modules}
        return LowRank(stacks, [name for name in self.base.linears if name in names])

    def side(self, side: SideWeights) -> SideWeights:
        """Return the side weights under the served modules' names."""
        return SideWeights(
            scales=self._vectors(side.scales),
            shifts=self._vectors(side.shifts),
            linears={
                name: part
                for stored, term in side.linears.items()
                for name, part in self._terms(stored, term)
            },
            embeddings={self._one(name): term for name, term in side.embeddings.items()},
            parameters={self._one(name): each for name, each in side.parameters.items()},
        )

    def _stacks(self, stack: LowRankStack) -> Iterator[LowRankStack]:
        columns = zip(*(self.dialect.served(module) for module in stack.modules), strict=True)
        blocks = self._cut(stack.modules[0], stack.b, dim=1)
        for modules, b in zip(columns, blocks, strict=True):
            yield LowRankStack(modules, stack.a, b, stack.factor, stack.scaling)

    def _vectors(self, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: part
            for stored, vector in vectors.items()
            for name, part in zip(
                self.dialect.served(stored), self._cut(stored, vector), strict=True
            )
        }

    def _terms(self, stored: str, term: SideTerm) -> Iterator[tuple[str, SideTerm]]:
        if not isinstance(term, FullLinear):
            yield self._one(stored), term
            return
        biases = None if term.bias is None else self._cut(stored, term.bias)
        for i, weight in enumerate(self._cut(stored, term.weight)):
            part = FullLinear(weight, None if biases is None else biases[i])
            yield self.dialect.served(stored)[i], part

    def _one(self, stored: str) -> str:
        (name,) = self.dialect.served(stored)
        return name

    def _cut(self, stored: str, tensor: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
        """Cut a tensor along `dim` into one part for each served module of the module `stored`."""
        names = self.dialect.served(stored)
        return torch.split(tensor, [self.base.linears[n].out_features for n in names], dim)
