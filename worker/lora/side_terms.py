"""What an adapter makes of whole modules, for the tokens that are its own."""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor


class SideTerm(Protocol):
    """One adapter's part in one module."""

    def tensors(self) -> tuple[Tensor, ...]:
        """All that takes memory."""
        ...

    def to(self, device: torch.device) -> "SideTerm":
        """The same on a device."""
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

    def tensors(self) -> tuple[Tensor, ...]:
        """As the protocol says."""
        return (self.a, self.b) if self.scale is None else (self.a, self.b, self.scale)

    def to(self, device: torch.device) -> "LowRankVectors":
        """As the protocol says."""
        scale = None if self.scale is None else self.scale.to(device)
        return LowRankVectors(self.a.to(device), self.b.to(device), scale)

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

    def tensors(self) -> tuple[Tensor, ...]:
        """As the protocol says."""
        return self.ids, self.vectors

    def to(self, device: torch.device) -> "TokenVectors":
        """As the protocol says."""
        return TokenVectors(self.ids.to(device), self.vectors.to(device))

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

    def tensors(self) -> tuple[Tensor, ...]:
        """As the protocol says."""
        return self.ids, self.rows

    def to(self, device: torch.device) -> "TokenLogits":
        """As the protocol says."""
        return TokenLogits(self.ids.to(device), self.rows.to(device))

    def change(self, x: Tensor, y: Tensor) -> Tensor:
        """From `[n, in]` and logits `[n, vocab]`."""
        return y.index_copy(1, self.ids, F.linear(x, self.rows))


@dataclass(frozen=True, slots=True, eq=False)
class WholeLinear:
    """A linear in the place of the base's."""

    weight: Tensor
    """`[out, in]`"""
    bias: Tensor | None

    def tensors(self) -> tuple[Tensor, ...]:
        """As the protocol says."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    def to(self, device: torch.device) -> "WholeLinear":
        """As the protocol says."""
        bias = None if self.bias is None else self.bias.to(device)
        return WholeLinear(self.weight.to(device), bias)

    def change(self, x: Tensor, y: Tensor) -> Tensor:
        """From `[n, in]` to `[n, out]`."""
        return F.linear(x, self.weight, self.bias)
