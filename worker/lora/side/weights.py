"""Side weights: all changes that an adapter makes, except for low-rank terms of linears.

A side term changes the output of one module for the tokens of one adapter. `change` takes the
adapter's input `x` and the base's output `y`, with one row per token, and returns the new output.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor

TensorFunction = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class LowRankVectors:
    """LoRA on an embedding. Token t's vector becomes `scale * (vector + a[t] @ b)`."""

    a: Tensor
    """Rows by token id, `[vocab, r]`."""
    b: Tensor
    """`[r, dim]`, already multiplied by the scaling and by the embedding's factor."""
    scale: Tensor | None
    """DoRA's factors, `[dim]`. None stands for factors of 1."""

    def change(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the vectors `[n, dim]` of token ids `x` `[n]`, given the base's vectors `y`."""
        new = torch.addmm(y, self.a.index_select(0, x), self.b)
        return new if self.scale is None else (new * self.scale).to(y.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class TokenVectors:
    """Replaces the vectors of some tokens in an embedding."""

    ids: Tensor
    """Ids of the tokens: `[n]` int64, sorted."""
    vectors: Tensor
    """New vectors of these tokens, `[n, dim]`, already multiplied by the embedding's factor."""

    def change(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the vectors `[n, dim]` of token ids `x` `[n]`, given the base's vectors `y`."""
        places = torch.searchsorted(self.ids, x).clamp_(max=len(self.ids) - 1)
        is_replaced = self.ids[places] == x
        return torch.where(is_replaced[:, None], self.vectors[places], y)


@dataclass(frozen=True, slots=True, eq=False)
class TokenLogits:
    """Replaces the rows of some tokens in an output head."""

    ids: Tensor
    """Ids of the tokens: `[n]` int64."""
    rows: Tensor
    """New rows of the head's weight for these tokens, `[n, in]`."""

    def change(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the logits `[n, vocab]` for inputs `x` `[n, in]`, given the base's logits `y`."""
        return y.index_copy(1, self.ids, F.linear(x, self.rows))


@dataclass(frozen=True, slots=True, eq=False)
class FullLinear:
    """A linear that replaces the base's linear."""

    weight: Tensor
    """The new weight, `[out, in]`."""
    bias: Tensor | None
    """The new bias, `[out]`; None if the linear has no bias."""

    def change(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the outputs `[n, out]` for inputs `x` `[n, in]`. `y` isn't used."""
        return F.linear(x, self.weight, self.bias)


SideTerm = LowRankVectors | TokenVectors | TokenLogits | FullLinear


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SideWeights:
    """Side weights of one adapter. The keys of all mappings are module names."""

    scales: Mapping[str, Tensor] = field(default_factory=dict)
    """DoRA's factors `[out]`. They multiply a linear's output after its low-rank term is added."""
    shifts: Mapping[str, Tensor] = field(default_factory=dict)
    """Vectors `[out]`. They are added to a linear's output after `scales` are applied."""
    linears: Mapping[str, SideTerm] = field(default_factory=dict)
    """Side terms of linears, by module name.

    A linear that is listed here has no scale, shift or low-rank term."""
    embeddings: Mapping[str, SideTerm] = field(default_factory=dict)
    """Side term of the input embedding. Empty if the adapter has no such term."""
    parameters: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    """Replacement parameters of norms and the embedding, by module and parameter name."""

    def map(self, function: TensorFunction) -> "SideWeights":
        """Return a copy with `function` applied to each tensor. The order of calls is fixed."""
        return SideWeights(
            scales={name: function(tensor) for name, tensor in self.scales.items()},
            shifts={name: function(tensor) for name, tensor in self.shifts.items()},
            linears={name: _mapped(term, function) for name, term in self.linears.items()},
            embeddings={name: _mapped(term, function) for name, term in self.embeddings.items()},
            parameters={
                module: {name: function(tensor) for name, tensor in by_name.items()}
                for module, by_name in self.parameters.items()
            },
        )

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, in the order in which `map` processes them."""
        tensors: list[Tensor] = []

        def collect(tensor: Tensor) -> Tensor:
            tensors.append(tensor)
            return tensor

        self.map(collect)
        return tensors

    @property
    def num_bytes(self) -> int:
        """Total size of the tensors in bytes."""
        return sum(tensor.nbytes for tensor in self.tensors)


ALIGNMENT = 64
"""Alignment of each tensor in packed side weights, in bytes."""


def packed_bytes(weights: SideWeights) -> int:
    """Return the size in bytes of the packed tensors of `weights`, including padding."""
    return sum(_padded_bytes(tensor) for tensor in weights.tensors)


def unpacked(weights: SideWeights, memory: Tensor) -> SideWeights:
    """Return side weights of the shapes and dtypes of `weights`, as views of `memory`.

    `memory` is a flat uint8 tensor of at least `packed_bytes(weights)` bytes. It holds the tensors
    in the order of `SideWeights.tensors`, each padded to a multiple of ALIGNMENT.
    """
    start = 0

    def view(tensor: Tensor) -> Tensor:
        nonlocal start
        part = memory[start : start + tensor.nbytes]
        start += _padded_bytes(tensor)
        return part.view(tensor.dtype).view(tensor.shape)

    return weights.map(view)


def _padded_bytes(tensor: Tensor) -> int:
    return -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT


def _mapped(term: SideTerm, function: TensorFunction) -> SideTerm:
    """Return a copy of `term` with `function` applied to each tensor, in the fields' order."""
    tensors = {each.name: getattr(term, each.name) for each in fields(term)}
    changes: Any = {name: function(each) for name, each in tensors.items() if each is not None}
    return replace(term, **changes)
