"""Launches the attention kernels of `device/attention.py`."""

from dataclasses import dataclass, field
from typing import Any

import torch
import triton
from torch import Tensor

from worker.kernels.interface import AttentionBatch, AttentionParams, Prepared
from worker.kernels.triton.device.attention import attention_kernel, merge_spans_kernel

SPAN = 256
"""Number of context tokens that one program reads in decode (a span). See `variants.py`."""
BLOCK_SPANS = 16
"""Number of spans that a program of `merge_spans_kernel` merges at once."""
MIN_BLOCK = 16
"""Smallest number of rows or columns that a GPU's matrix unit multiplies at once."""


@dataclass(slots=True)
class TritonBatch(Prepared):
    """Tensors that the layers of a step share, so that only the first layer allocates them."""

    blocks: dict[int, Tensor] = field(default_factory=dict)
    """For each value of `num_queries`, the result of `query_blocks`."""
    spans: dict[tuple[int, ...], tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)
    """For each (num_heads, num_spans, value_dim), memory for outputs, maxima and sums of spans."""


@dataclass(frozen=True, slots=True)
class BlockSizes:
    """Limits on a program's blocks, so that they fit into registers and shared memory."""

    max_rows: int
    """Maximum number of query rows in a program's block."""
    max_keys: int
    """Maximum number of keys that a program reads at once."""
    row_elements: int
    """Maximum number of elements in a block of query rows (rows x head width)."""
    key_elements: int
    """Maximum number of elements in the keys that are read at once (keys x head width)."""

    def rows(self, group: int, width: int, *, is_decode: bool) -> int:
        """Return a program's number of query rows, at least `group` (query heads per key head)."""
        wanted = MIN_BLOCK if is_decode else min(self.max_rows, self.row_elements // width)
        return max(wanted, _padded(group))

    def keys(self, width: int) -> int:
        """Return the number of keys that a program reads at once, a power of two."""
        return max(MIN_BLOCK, min(self.max_keys, self.key_elements // width))

    def num_warps(self, rows: int, width: int) -> int:
        """Return the number of warps with enough registers for `rows` rows of `width` elements."""
        return 4 if rows * width <= self.row_elements // 2 else 8


HALF = BlockSizes(max_rows=64, max_keys=64, row_elements=1 << 14, key_elements=1 << 13)
"""Limits for 16-bit elements."""
SINGLE = BlockSizes(max_rows=32, max_keys=32, row_elements=1 << 12, key_elements=1 << 12)
"""Limits for float32, whose elements and products take more memory and registers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Attention of one layer; see `Kernels.paged_attention` for the fields.

    The caches must be contiguous. In the query, the last dimension must be contiguous.
    """

    query: Tensor
    key_cache: Tensor
    value_cache: Tensor
    batch: AttentionBatch
    prepared: TritonBatch
    params: AttentionParams

    def __call__(self) -> Tensor:
        """Return the attention output, `[T, num_heads, value_dim]`."""
        num_tokens, num_heads, _ = self.query.shape
        num_sequences = len(self.batch.context_lens)
        out = self.query.new_empty(num_tokens, num_heads, self._value_dim)
        # Sequence lengths are on the device, and reading them would wait for it. These counts show
        # whether the batch may have prefills or decodes. A needless launch only costs time.
        if num_tokens > num_sequences:
            self._prefill(out)
        if num_tokens == 1 or num_sequences > 1:
            self._decode(out)
        return out

    @property
    def _value_dim(self) -> int:
        return self.value_cache.shape[3]

    @property
    def _group(self) -> int:
        """Number of query heads per key head."""
        return self.query.shape[1] // self.key_cache.shape[2]

    def _prefill(self, out: Tensor) -> None:
        constants = self._constants(is_decode=False)
        num_queries = constants["BLOCK_ROWS"] // self._group
        blocks = self.prepared.blocks.get(num_queries)
        if blocks is None:
            blocks = self.prepared.blocks[num_queries] = query_blocks(self.batch, num_queries)
        grid = (len(blocks), self.key_cache.shape[2], 1)
        # Without spans, the kernel ignores the span arguments.
        self._launch(grid, out, (out, out, out), blocks, HAS_SPANS=False, **constants)

    def _decode(self, out: Tensor) -> None:
        batch = self.batch
        num_sequences, num_blocks = batch.block_tables.shape
        num_spans = triton.cdiv(num_blocks * self.key_cache.shape[1], SPAN)
        has_spans = num_spans > 1
        spans = self._span_memory(num_spans) if has_spans else (out, out, out)
        grid = (num_sequences, self.key_cache.shape[2], num_spans)
        constants = self._constants(is_decode=True)
        self._launch(grid, out, spans, batch.query_starts, HAS_SPANS=has_spans, **constants)
        if has_spans:
            merge_spans_kernel[num_sequences, self.query.shape[1]](
                self._sinks(out),
                out,
                *spans,
                batch.query_starts,
                batch.context_lens,
                num_spans,
                HAS_SINKS=constants["HAS_SINKS"],
                WINDOW=constants["WINDOW"],
                CHUNK=constants["CHUNK"],
                NUM_HEADS=self.query.shape[1],
                VALUE_DIM=self._value_dim,
                SPAN=SPAN,
                BLOCK_SPANS=BLOCK_SPANS,
                BLOCK_VALUE_DIM=constants["BLOCK_VALUE_DIM"],
                num_warps=4,
                num_stages=1,
                enable_fp_fusion=True,
            )

    def _launch(
        self,
        grid: tuple[int, int, int],
        out: Tensor,
        spans: tuple[Tensor, Tensor, Tensor],
        blocks: Tensor,
        **constants: Any,
    ) -> None:
        attention_kernel[grid](
            self.query,
            self.key_cache,
            self.value_cache,
            self._sinks(out),
            out,
            *spans,
            blocks,
            self.batch.query_starts,
            self.batch.context_lens,
            self.batch.block_tables,
            self.query.stride(0),
            self.query.stride(1),
            self.batch.block_tables.stride(0),
            grid[2],
            self.params.scaling,
            self.params.softcap or 0.0,
            num_stages=2,
            enable_fp_fusion=True,
            **constants,
        )

    def _sinks(self, out: Tensor) -> Tensor:
        """Return the heads' sinks, or `out` as an unused argument if the layer has no sinks."""
        return out if self.params.sinks is None else self.params.sinks

    def _constants(self, *, is_decode: bool) -> dict[str, Any]:
        """Return the compile-time constants of `attention_kernel`."""
        key_dim, group = self.query.shape[2], self._group
        sizes = SINGLE if self.query.dtype == torch.float32 else HALF
        width = max(_padded(key_dim), _padded(self._value_dim))
        rows = sizes.rows(group, width, is_decode=is_decode)
        return {
            "IS_DECODE": is_decode,
            "HAS_SOFTCAP": self.params.softcap is not None,
            "HAS_SINKS": self.params.sinks is not None,
            "WINDOW": self.params.sliding_window or 0,
            "CHUNK": self.params.chunk_size or 0,
            "NUM_KV_HEADS": self.key_cache.shape[2],
            "GROUP": group,
            "KEY_DIM": key_dim,
            "VALUE_DIM": self._value_dim,
            "BLOCK_SIZE": self.key_cache.shape[1],
            "SPAN": SPAN,
            "BLOCK_ROWS": rows,
            "BLOCK_KEYS": sizes.keys(width),
            "BLOCK_KEY_DIM": _padded(key_dim),
            "BLOCK_VALUE_DIM": _padded(self._value_dim),
            "num_warps": sizes.num_warps(rows, width),
        }

    def _span_memory(self, num_spans: int) -> tuple[Tensor, Tensor, Tensor]:
        shape = (len(self.batch.context_lens), self.query.shape[1], num_spans)
        key = (*shape[1:], self._value_dim)
        memory = self.prepared.spans.get(key)
        if memory is None:
            memory = self.prepared.spans[key] = (
                self.query.new_empty(*shape, self._value_dim, dtype=torch.float32),
                self.query.new_empty(shape, dtype=torch.float32),
                self.query.new_empty(shape, dtype=torch.float32),
            )
        return memory


def query_blocks(batch: AttentionBatch, num_queries: int) -> Tensor:
    """Split each sequence's queries into blocks of up to `num_queries` queries.

    Returns `[I, 2]` int32, with two columns: the index of each block's sequence, and the index of
    the block's first query in that sequence. A sequence may get one superfluous block, which begins
    after its last query. The call doesn't wait for the device.
    """
    num_sequences, device = len(batch.context_lens), batch.context_lens.device
    first = batch.query_starts[:-1] // num_queries
    first = first + torch.arange(num_sequences, dtype=torch.int32, device=device)
    num_blocks = len(batch.slots) // num_queries + num_sequences
    block = torch.arange(num_blocks, dtype=torch.int32, device=device)
    sequence = torch.searchsorted(first, block, right=True, out_int32=True) - 1
    return torch.stack([sequence, (block - first[sequence]) * num_queries], dim=1)


def _padded(dim: int) -> int:
    """Return the smallest power of two that is at least `dim` and supported by matrix units."""
    return max(MIN_BLOCK, 1 << (dim - 1).bit_length())
