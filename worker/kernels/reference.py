"""All kernels in plain torch: the reference for the faster kernels, and their fallback."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor

from worker.kernels.interface import (
    AttentionBatch,
    AttentionParams,
    LayerCache,
    LoRAPlan,
    LoRASite,
    LoRASites,
    Prepared,
)


class ReferenceKernels:
    """Kernels for every device and dtype that torch supports."""

    name = "torch"

    def store_kv(
        self, key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slots: Tensor
    ) -> None:
        """Write keys and values to their slots; see `Kernels.store_kv`."""
        key_cache.flatten(0, 1).index_copy_(0, slots, key)
        value_cache.flatten(0, 1).index_copy_(0, slots, value)

    def paged_attention(
        self, query: Tensor, cache: LayerCache, batch: AttentionBatch, params: AttentionParams
    ) -> Tensor:
        """Compute causal attention; see `Kernels.paged_attention`."""
        prepared = batch.prepared
        if not isinstance(prepared, _ReferenceBatch):
            prepared = batch.prepared = _ReferenceBatch(list(_groups(batch)))
        outs = []
        for group in prepared.groups:
            key, value = (_gather(part, group) for part in cache)  # [B, Hkv, L, D]
            mask = _visible(group.positions, key.shape[2], params)  # [B, 1, Q, L]
            q = _queries_of(group, query).transpose(1, 2)
            if params.softcap is None and params.sinks is None:
                out = _grouped_sdpa(q, key, value, mask, params.scaling)
            else:
                out = _explicit_softmax(q, key, value, mask, params)
            outs.append(out.transpose(1, 2).flatten(0, 1))
        return torch.cat(outs)

    def add_lora_(self, y: Tensor, x: Tensor, sites: LoRASites, plan: LoRAPlan) -> None:
        """Add LoRA terms to `y` in place; see `Kernels.add_lora_`."""
        starts = plan.token_starts.tolist()
        for adapter, (start, end) in enumerate(pairwise(starts)):
            tokens = plan.tokens[start:end].long()
            inputs = x.index_select(0, tokens)
            for site in sites.sites:
                pages = _pages(plan, site, adapter)
                if len(pages):
                    shrunk = F.linear(inputs, site.a.index_select(0, pages).flatten(0, 1))
                    term = shrunk @ site.b.index_select(0, pages).flatten(0, 1)
                    columns = y[:, site.offset : site.offset + site.b.shape[2]]
                    columns.index_add_(0, tokens, term)


@dataclass(frozen=True, slots=True)
class _Group:
    """Consecutive sequences with equal numbers of query tokens and contexts of similar length."""

    start: int
    """Index of the group's first token in the batch."""
    block_tables: Tensor
    """`[B, M]` int64: the blocks of each of the group's B sequences."""
    positions: Tensor
    """`[B, Q]` int64: the position of each query token in its sequence."""
    num_cached: Tensor
    """`[B]` int64: the number of cached tokens of each sequence."""


@dataclass(frozen=True, slots=True)
class _ReferenceBatch(Prepared):
    """Groups of a step's sequences. All layers of the step use the same groups."""

    groups: list[_Group]


def _groups(batch: AttentionBatch) -> Iterator[_Group]:
    """Split the batch's sequences into groups of adjacent sequences, and yield each group."""
    starts, lens = batch.query_starts.tolist(), batch.context_lens.tolist()
    device, block_size = batch.slots.device, _BLOCK_STEP
    shapes = [
        (starts[i + 1] - starts[i], -(-length // block_size)) for i, length in enumerate(lens)
    ]
    first = 0
    while first < len(lens):
        last = first + 1
        while last < len(lens) and shapes[last] == shapes[first]:
            last += 1
        num_queries = shapes[first][0]
        cached = batch.context_lens[first:last].long()
        yield _Group(
            start=starts[first],
            block_tables=batch.block_tables[first:last].long(),
            positions=cached[:, None] + torch.arange(-num_queries, 0, device=device),
            num_cached=cached,
        )
        first = last


_BLOCK_STEP = 64
"""Context lengths within a group differ by less than this number of tokens."""


def _gather(cache: Tensor, group: _Group) -> Tensor:
    num_blocks = -(-int(group.num_cached.max()) // cache.shape[1])
    tables = group.block_tables[:, :num_blocks]
    # index_select of entire blocks is several times faster on CPUs than advanced indexing.
    blocks = cache.flatten(1).index_select(0, tables.flatten())
    gathered = blocks.view(len(tables), num_blocks * cache.shape[1], *cache.shape[2:])
    # Rows beyond a context are masked in attention, but a NaN there would reach the result anyway.
    is_beyond = torch.arange(gathered.shape[1], device=cache.device) >= group.num_cached[:, None]
    return gathered.masked_fill_(is_beyond[:, :, None, None], 0.0).transpose(1, 2)


def _queries_of(group: _Group, query: Tensor) -> Tensor:
    num_seqs, num_queries = group.positions.shape
    part = query[group.start : group.start + num_seqs * num_queries]
    return part.reshape(num_seqs, num_queries, *part.shape[1:])


def _visible(positions: Tensor, length: int, params: AttentionParams) -> Tensor:
    key_positions = torch.arange(length, device=positions.device)
    last = positions[:, None, :, None]
    visible = key_positions <= last
    if params.sliding_window is not None:
        visible &= key_positions > last - params.sliding_window
    if params.chunk_size is not None:
        visible &= key_positions >= last - last % params.chunk_size
    return visible


def _grouped_sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scaling: float) -> Tensor:
    batch, num_heads, num_queries, _ = q.shape
    num_kv_heads = k.shape[1]
    if num_queries > 1 or num_heads == num_kv_heads:
        gqa = num_heads != num_kv_heads
        return F.scaled_dot_product_attention(q, k, v, mask, scale=scaling, enable_gqa=gqa)
    # In decode, a group's query heads become queries of one head, so that keys aren't copied.
    grouped = q.reshape(batch, num_kv_heads, num_heads // num_kv_heads, -1)
    out = F.scaled_dot_product_attention(grouped, k, v, mask, scale=scaling)
    return out.reshape(batch, num_heads, 1, -1)


def _explicit_softmax(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, params: AttentionParams
) -> Tensor:
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = (q @ k.transpose(-1, -2)).float() * params.scaling
    if params.softcap is not None:
        scores = torch.tanh(scores / params.softcap) * params.softcap
    scores = scores.masked_fill(~mask, float("-inf"))
    if params.sinks is not None:
        sinks = params.sinks.float().view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, sinks], dim=-1)
    return scores.softmax(-1)[..., : k.shape[2]].to(v.dtype) @ v


def _pages(plan: LoRAPlan, site: LoRASite, adapter: int) -> Tensor:
    """Return the indices of the adapter's pages in the site, `[pages]` int64."""
    of_group = plan.pages[site.group]
    first, last = of_group.starts[adapter], of_group.starts[adapter + 1]
    return of_group.pages[site.layer, first:last].long()
