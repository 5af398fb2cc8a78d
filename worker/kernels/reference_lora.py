"""The LoRA term in plain torch: what every other LoRA kernel must equal, and the CPU's own.

    y[t] += B[adapter(t)] @ (A[adapter(t)] @ x[t])        scaling is part of B

The rows of several adapters lie one below the other in `a` and `b`. A block multiplies its tokens
by all of its rows and clears what isn't the token's own in between, which makes two matrix
products whatever the number of adapters. How a batch is cut into blocks is the caller's choice.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it


class LoRABlock(NamedTuple):
    """Tokens `start` to `stop` of the batch, and the rows that they are multiplied by."""

    start: int
    stop: int
    a: torch.Tensor
    """`[rows, in]`"""
    b: torch.Tensor
    """`[rows, out]`"""
    foreign: torch.Tensor | None
    """`[stop - start, rows]` bool: the row isn't of the token's adapter. None: all are."""


def add_lora_(y: torch.Tensor, x: torch.Tensor, blocks: Iterable[LoRABlock]) -> None:
    """Add the LoRA term of `x` `[T, in]` to `y` `[T, out]` in place; all of one dtype.

    Foreign values are overwritten rather than multiplied by zero: what overflows under an
    adapter that isn't the token's own never reaches it.
    """
    for start, stop, a, b, foreign in blocks:
        if stop - start == len(x):
            tokens, out = x, y
        else:
            tokens, out = x[start:stop], y[start:stop]
        shrunk = F.linear(tokens, a)
        if foreign is not None:
            shrunk.masked_fill_(foreign, 0.0)
        out.addmm_(shrunk, b)
