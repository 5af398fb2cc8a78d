"""Side terms. Each changes the output of one module for the tokens of one adapter."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor

TensorFunction = Callable[[Tensor], Tensor]


class SideTerm(Protocol):
    """One adapter's change to one module."""

    def map(self, function: TensorFunction) -> "SideTerm":
        """Return a copy with `function` applied to each tensor. The order of calls is fixed."""
        ...

    def change(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the adapter's output for the input `x`, given the base's output `y`.

        The input and both outputs have one row per token.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class LowRankVectors:
    """LoRA on an embedding. Token t's vector becomes `scale * (vector + a[t] @ b)`."""

    a: Tensor
    """`[vocab, r]`"""
    b: Tensor
    """`[r, dim]`. The scaling and the embedding's factor are already applied."""
    scale: Tensor | None
    """DoRA's factor `[dim]`. None means 1."""

    def map(self, function: TensorFunction) -> "LowRankVectors":
        """Return a copy with `function` applied to each tensor. The order of calls is fixed."""
        scale = None if self.scale is None else function(self.scale)
        return LowRankVectors(function(self.a), function(self.b), scale)

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
    """`[n, dim]`. They are already multiplied by the factor by which the embedding scales its
    rows."""

    def map(self, function: TensorFunction) -> "TokenVectors":
        """Return a copy with `function` applied to each tensor. The order of calls is fixed."""
        return TokenVectors(function(self.ids), function(self.vectors))

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
    """`[n, in]`"""

    def map(self, function: TensorFunction) -> "TokenLogits":
        """Return a copy with `function` applied to each tensor. The order of calls is fixed."""
        return TokenLogits(function(self.ids), function(self.rows))

    def change(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the logits `[n, vocab]` for inputs `x` `[n, in]`, given the base's logits `y`."""
        return y.index_copy(1, self.ids, F.linear(x, self.rows))


@dataclass(frozen=True, slots=True, eq=False)
class FullLinear:
    """A linear that replaces the base's linear."""

    weight: Tensor
    """`[out, in]`"""
    bias: Tensor | None
    """`[out]`"""

    def map(self, function: TensorFunction) -> "FullLinear":
        """Return a copy with `function` applied to each tensor. The order of calls is fixed."""
        bias = None if self.bias is None else function(self.bias)
        return FullLinear(function(self.weight), bias)

    def change(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the outputs `[n, out]` for inputs `x` `[n, in]`. `y` isn't used."""
        return F.linear(x, self.weight, self.bias)
