"""Interface of the kernels, and the memory layout of their arguments.

`reference.py` is the reference implementation in plain torch. All other implementations must
compute the same results.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Prepared:
    """Base class of data that kernels derive from their arguments and reuse in later calls."""

    __slots__ = ()


@dataclass(slots=True, eq=False)
class AttentionBatch:
    """KV cache locations of a step's T tokens.

    The tokens belong to B sequences and are concatenated, sequence by sequence.
    """

    slots: Tensor
    """`[T]` int64: the cache slot of each token's key and value."""
    query_starts: Tensor
    """`[B + 1]` int32: sequence b has tokens `query_starts[b]` to `query_starts[b + 1] - 1`."""
    context_lens: Tensor
    """`[B]` int32: number of cached tokens of each sequence, including those of this step."""
    block_tables: Tensor
    """`[B, M]` int32: each sequence's blocks. Entries after the last block are never read."""
    prepared: Prepared | None = None
    """Data that the kernels derive from the batch in the step's first layer; None until then."""


@dataclass(frozen=True, slots=True, eq=False)
class AttentionParams:
    """Parameters of one layer's attention."""

    scaling: float
    """Factor by which the attention scores are multiplied."""
    sliding_window: int | None = None
    """Number of positions that a token can attend to, including its own; None sets no limit."""
    softcap: float | None = None
    """Bound `c` in `c * tanh(score / c)`; None leaves scores unbounded."""
    chunk_size: int | None = None
    """Number of positions in a chunk, if a token attends only to its own chunk; None otherwise.

    Can't be combined with `sliding_window`."""
    sinks: Tensor | None = None
    """`[num_heads]`, contiguous, of any float dtype: each query head's attention sink, or None."""


LayerCache = tuple[Tensor, Tensor]
"""Keys and values of one layer: `[num_blocks, block_size, num_kv_heads, key_dim or value_dim]`."""


@dataclass(frozen=True, slots=True)
class LoRASite:
    """Views of the pool's memory for one linear.

    Page `p` of the linear consists of `a[p]` and `b[p]`. All linears share the pool's memory.
    `a` and `b` have an entry for each address at which a page can start, so entries overlap.
    Kernels may read only pages that the plan lists. Offsets of elements can exceed 32 bits.
    """

    a: Tensor
    """`[starts, page_rows, in]`: a contiguous entry for each possible start of a page."""
    b: Tensor
    """`[starts, page_rows, out]`, like `a`. The adapter's `scaling` is already applied."""
    group: int
    """Index of the linear's pool group in `LoRAPlan.pages`."""
    layer: int = 0
    """The linear's row in `LoRAPages.pages`."""
    offset: int = 0
    """First column of the linear's output in the tensor that holds all siblings' outputs."""


@dataclass(slots=True, eq=False)
class LoRASites:
    """Sites of sibling linears: linears with the same input. Valid while the pool exists."""

    sites: Sequence[LoRASite]
    prepared: Prepared | None = None
    """Data that the kernels derive in the first call with these sites; None until then."""


@dataclass(frozen=True, slots=True)
class LoRAPages:
    """Pages of N adapters in one pool group."""

    starts: Tensor
    """`[N + 1]` int32: adapter n has columns `starts[n]` to `starts[n + 1] - 1` of `pages`."""
    pages: Tensor
    """`[layers, P]` int32, contiguous: indices into `LoRASite.a` and `LoRASite.b`.

    Each row has the pages of one linear of the group. An adapter's pages are in rank order.
    """


@dataclass(slots=True, eq=False)
class LoRAPlan:
    """Assignment of a batch's tokens to N adapters. Tokens of the base model are left out."""

    token_starts: Tensor
    """`[N + 1]` int32: adapter n has entries `token_starts[n]` to `token_starts[n + 1] - 1`."""
    tokens: Tensor
    """int32: indices of tokens in the batch, grouped by adapter."""
    pages: Sequence[LoRAPages]
    """For each pool group, the adapters' pages in the group."""
    page_rows: int
    """Number of matrix rows in a page. Unused rows of an adapter's last page are zero."""
    prepared: Prepared | None = None
    """Data that the kernels derive in the first call with this plan; None until then."""


class Kernels(Protocol):
    """One implementation of all kernels."""

    name: str
    """Name of the implementation in log messages."""

    def store_kv(
        self, key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slots: Tensor
    ) -> None:
        """Write keys and values to their slots of one layer's cache.

        Args:
            key: `[T, num_kv_heads, key_dim]`.
            value: `[T, num_kv_heads, value_dim]`.
            key_cache: `[num_blocks, block_size, num_kv_heads, key_dim]`, changed in place.
            value_cache: `[num_blocks, block_size, num_kv_heads, value_dim]`, changed in place.
            slots: `[T]` int64; slot `s` is row `s % block_size` of block `s // block_size`.
        """

    def paged_attention(
        self, query: Tensor, cache: LayerCache, batch: AttentionBatch, params: AttentionParams
    ) -> Tensor:
        """Compute causal attention of each sequence's query tokens over its cached tokens.

        The result is `softmax(softcap(q k^T * scaling) + mask) v`. The token at position p attends
        to positions `<= p`. With a sliding window, it attends only to positions
        `> p - sliding_window`. With chunks, it attends only to positions
        `>= p // chunk_size * chunk_size`. A head's sink is an additional score in the softmax, to
        which no value belongs (gpt-oss, arXiv 2508.10925). Each key head serves
        `num_heads / num_kv_heads` query heads (GQA, arXiv 2305.13245).

        Args:
            query: `[T, num_heads, key_dim]`.
            cache: the layer's keys and values.
            batch: the cache locations of the step's tokens.
            params: the layer's attention parameters.

        Returns:
            `[T, num_heads, value_dim]`, contiguous, in the query's dtype.
        """

    def add_lora_(self, y: Tensor, x: Tensor, sites: LoRASites, plan: LoRAPlan) -> None:
        """Add the LoRA term of each token in `x` to `y` in place.

        For each site, `y[t, offset + o] += sum_r b[r, o] * round(sum_i a[r, i] * x[t, i])`, where r
        runs over the rows of the token's adapter. Sums are fp32; `round` rounds to `x`'s dtype.

        Args:
            y: `[T, out]`, where `out` is the sum of the sites' numbers of output features.
            x: `[T, in]`.
            sites: the sibling linears whose terms are added.
            plan: the adapter of each token.
        """
