"""Paged attention in plain torch: the oracle of every faster kernel, and the fallback.

Layout: a layer's cache is `[num_blocks, block_size, num_kv_heads, head_dim]`, keys and values
apart; slot `s` is row `s % block_size` of block `s // block_size`. Query heads are grouped over
key heads (GQA, arXiv 2305.13245).
"""

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor


def store_kv(
    key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slots: Tensor
) -> None:
    """Write `key` and `value` `[T, num_kv_heads, head_dim]` into their slots `[T]` int64."""
    key_cache.flatten(0, 1).index_copy_(0, slots, key)
    value_cache.flatten(0, 1).index_copy_(0, slots, value)


def paged_attention(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_tables: Tensor,
    query_positions: Tensor,
    *,
    scaling: float,
    sliding_window: int | None,
    softcap: float | None,
) -> Tensor:
    """Causal attention of sequences with equally many query tokens over their cached tokens.

    `softmax(softcap(q k^T * scaling) + mask) v`; position p sees positions `<= p`, and with a
    window only those `> p - sliding_window`.

    Args:
        query: `[B, Q, num_heads, head_dim]`.
        key_cache: one layer's keys.
        value_cache: one layer's values.
        block_tables: `[B, M]` int64; rows may be padded with any block of finite values.
        query_positions: `[B, Q]` int64.
        scaling: factor on the scores.
        sliding_window: positions seen, own included; None sees all.
        softcap: bound `c` of `c * tanh(score / c)`; None is unbounded.

    Returns:
        `[B, Q, num_heads, value_dim]`, contiguous, in the query's dtype.
    """
    key = _gather(key_cache, block_tables)  # [B, Hkv, L, D]
    value = _gather(value_cache, block_tables)
    mask = _visible(query_positions, key.shape[2], sliding_window)  # [B, 1, Q, L]
    query = query.transpose(1, 2)
    if softcap is None:
        out = _grouped_sdpa(query, key, value, mask, scaling)
    else:
        out = _softcapped(query, key, value, mask, scaling, softcap)
    return out.transpose(1, 2).contiguous()


def _gather(cache: Tensor, block_tables: Tensor) -> Tensor:
    # Whole blocks by index_select: on CPU several times faster than advanced indexing.
    blocks = cache.flatten(1).index_select(0, block_tables.flatten())
    batch, num_blocks = block_tables.shape
    return blocks.view(batch, num_blocks * cache.shape[1], *cache.shape[2:]).transpose(1, 2)


def _visible(positions: Tensor, length: int, sliding_window: int | None) -> Tensor:
    key_positions = torch.arange(length, device=positions.device)
    last = positions[:, None, :, None]
    visible = key_positions <= last
    if sliding_window is not None:
        visible &= key_positions > last - sliding_window
    return visible


def _grouped_sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scaling: float) -> Tensor:
    batch, num_heads, num_queries, _ = q.shape
    num_kv_heads = k.shape[1]
    if num_queries > 1 or num_heads == num_kv_heads:
        gqa = num_heads != num_kv_heads
        return F.scaled_dot_product_attention(q, k, v, mask, scale=scaling, enable_gqa=gqa)
    # Decode: the heads of a group become queries of one head, so that no key is copied.
    grouped = q.reshape(batch, num_kv_heads, num_heads // num_kv_heads, -1)
    out = F.scaled_dot_product_attention(grouped, k, v, mask, scale=scaling)
    return out.reshape(batch, num_heads, 1, -1)


def _softcapped(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scaling: float, softcap: float
) -> Tensor:
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = (q @ k.transpose(-1, -2)).float() * scaling
    scores = torch.tanh(scores / softcap) * softcap
    return scores.masked_fill(~mask, float("-inf")).softmax(-1).to(v.dtype) @ v
