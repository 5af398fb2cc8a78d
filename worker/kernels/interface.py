"""What every set of kernels computes, and the layout of its arguments.

`reference.py` is plain torch and the oracle; the others must equal it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True)
class AttentionBatch:
    """How a step's flattened row of T tokens, of B sequences, lies in the KV cache."""

    slots: Tensor
    """`[T]` int64: where each token's key and value go."""
    query_starts: Tensor
    """`[B + 1]` int32: sequence b's tokens are those from `query_starts[b]` on."""
    context_lens: Tensor
    """`[B]` int32: cached tokens of each sequence, those of this step included."""
    block_tables: Tensor
    """`[B, M]` int32: each sequence's blocks; what is behind its context is never read."""
    prepared: dict[str, Any] = field(default_factory=dict)
    """What kernels made of it for the step's other layers."""


@dataclass(frozen=True, slots=True)
class LoRASite:
    """The pool's memory for one linear, as its pages lie in it.

    Page `p` is the matrices `a[p]` and `b[p]`. All linears share the memory, and pages may start
    anywhere in it, so that `a` overlaps itself: only pages of the plan are to be read. Offsets in
    elements exceed 32 bits.
    """

    a: Tensor
    """`[starts, page_rows, in]`, contiguous but for its first stride."""
    b: Tensor
    """`[starts, page_rows, out]`, scaled; likewise."""
    group: int
    """Index into `LoRAPlan.pages`."""
    layer: int = 0
    """Its row in `LoRAPages.pages`."""
    offset: int = 0
    """Where its columns begin in the output that it shares with its siblings."""


@dataclass(frozen=True, slots=True)
class LoRASites:
    """Linears that read the same input; as long as the pool is."""

    sites: Sequence[LoRASite]
    prepared: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LoRAPages:
    """The pages of each of N adapters in one pool group, whose linears have a row each."""

    starts: Tensor
    """`[N + 1]` int32: adapter n's pages are the columns from `starts[n]` on."""
    pages: Tensor
    """`[layers, P]` int32, contiguous: where pages start, in the order of their rows."""


@dataclass(frozen=True, slots=True)
class LoRAPlan:
    """Which of N adapters computes which tokens of a batch. Tokens of the base are in none."""

    token_starts: Tensor
    """`[N + 1]` int32: adapter n's tokens are those from `token_starts[n]` on."""
    tokens: Tensor
    """int32: token numbers."""
    pages: Sequence[LoRAPages]
    """By pool group."""
    page_rows: int
    """Rows of a page; an adapter's last one is filled up with zeros."""
    prepared: dict[str, Any] = field(default_factory=dict)


class Kernels(Protocol):
    """One implementation of all."""

    name: str
    """For the log."""

    def store_kv(
        self, key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slots: Tensor
    ) -> None:
        """Write `key` and `value` `[T, num_kv_heads, dim]` into their slots `[T]` int64.

        A layer's cache is `[num_blocks, block_size, num_kv_heads, dim]`, keys and values apart;
        slot `s` is row `s % block_size` of block `s // block_size`.
        """

    def paged_attention(
        self,
        query: Tensor,
        key_cache: Tensor,
        value_cache: Tensor,
        batch: AttentionBatch,
        *,
        scaling: float,
        sliding_window: int | None,
        softcap: float | None,
    ) -> Tensor:
        """Causal attention of each sequence's query tokens over its cached tokens.

        `softmax(softcap(q k^T * scaling) + mask) v`; position p sees positions `<= p`, and with
        a window only those `> p - sliding_window`. Query heads are grouped over key heads (GQA,
        arXiv 2305.13245).

        Args:
            query: `[T, num_heads, key_dim]`.
            key_cache: one layer's keys.
            value_cache: one layer's values.
            batch: where the tokens' keys and values are.
            scaling: factor on the scores.
            sliding_window: positions seen, own included; None sees all.
            softcap: bound `c` of `c * tanh(score / c)`; None is unbounded.

        Returns:
            `[T, num_heads, value_dim]`, contiguous, in the query's dtype.
        """
        ...

    def add_lora_(self, y: Tensor, x: Tensor, sites: LoRASites, plan: LoRAPlan) -> None:
        """Add each token's LoRA term of `x` `[T, in]` to `y` `[T, sum of out]` in place.

        `y[t, o] += sum_r b[r, o] * round(sum_i a[r, i] * x[t, i])` over the rows r of the
        token's adapter in the site that has column o; sums are fp32, `round` is to the dtype.
        """
