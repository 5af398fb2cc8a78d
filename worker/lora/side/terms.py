"""What an adapter makes of whole modules, for the tokens that are its own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor

OfTensor = Callable[[Tensor], Tensor]


class SideTerm(Protocol):
    """One adapter's part in one module."""

    def map(self, function: OfTensor) -> "SideTerm":
        """The same with `function` of each tensor in its place, always in the same order."""
        ...

    def change(self, x: Tensor, y: Tensor) -> Tensor:
        """What takes the place of `y`, the base's output for `x`; a row for each token."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class LowRankVectors:
    """LoRA of an embedding: token t's vector becomes `scale * (vector + a[t] @ b)`."""

    a: Tensor
    """`[vocab, r]`"""
    b: Tensor
    """`[r, dim]`, with all factors in it."""
    scale: Tensor | None
    """`[dim]`: DoRA's; None is 1."""

    def map(self, function: OfTensor) -> "LowRankVectors":
        """As the protocol says."""
        scale = None if self.scale is None else function(self.scale)
        return LowRankVectors(function(self.a), function(self.b), scale)

    def change(self, x: Tensor, y: Tensor) -> Tensor:
        """From token ids `[n]` and vectors `[n, dim]`."""
        new = torch.addmm(y, self.a.index_select(0, x), self.b)
        return new if self.scale is None else (new * self.scale).to(y.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class TokenVectors:
    """Vectors of some tokens in an embedding."""

    ids: Tensor
    """`[n]` int64, sorted."""
    vectors: Tensor
    """`[n, dim]`, with the embedding's factor in them."""

    def map(self, function: OfTensor) -> "TokenVectors":
        """As the protocol says."""
        return TokenVectors(function(self.ids), function(self.vectors))

    def change(self, x: Tensor, y: Tensor) -> Tensor:
        """From token ids `[n]` and vectors `[n, dim]`."""
        places = torch.searchsorted(self.ids, x).clamp_(max=len(self.ids) - 1)
        is_theirs = self.ids[places] == x
        return torch.where(is_theirs[:, None], self.vectors[places], y)


@dataclass(frozen=True, slots=True, eq=False)
class TokenLogits:
    """Rows of an output head for some tokens."""

    ids: Tensor
    """`[n]` int64."""
    rows: Tensor
    """`[n, in]`"""

    def map(self, function: OfTensor) -> "TokenLogits":
        """As the protocol says."""
        return TokenLogits(function(self.ids), function(self.rows))

    def change(self, x: Tensor, y: Tensor) -> Tensor:
        """From `[n, in]` and logits `[n, vocab]`."""
        return y.index_copy(1, self.ids, F.linear(x, self.rows))


@dataclass(frozen=True, slots=True, eq=False)
class WholeLinear:
    """A linear in the place of the base's."""

    weight: Tensor
    """`[out, in]`"""
    bias: Tensor | None

    def map(self, function: OfTensor) -> "WholeLinear":
        """As the protocol says."""
        bias = None if self.bias is None else function(self.bias)
        return WholeLinear(function(self.weight), bias)

    def change(self, x: Tensor, y: Tensor) -> Tensor:
        """From `[n, in]` to `[n, out]`."""
        return F.linear(x, self.weight, self.bias)
