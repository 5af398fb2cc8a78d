"""The attention function that transformers' models call: paged, for requests of any length.

All requests of a step lie behind each other in one row `[1, T]`. The function finds the step's
layout in a context that is set around the forward, since models don't pass extra keywords down
alike.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from worker.kernels.reference import paged_attention, store_kv
from worker.model.kv_cache import KVCache, KVShape

PAGED_ATTENTION = "lorikeet_paged"
"""Name under which transformers finds the function."""


@dataclass(frozen=True, slots=True)
class AttentionGroup:
    """Neighbouring sequences of a step that are computed by one kernel call.

    All have `num_queries` tokens in this step; their block tables are padded to one length.
    """

    start: int
    """First token in the flattened row."""
    num_queries: int
    block_tables: Tensor
    """`[B, M]` int64."""
    query_positions: Tensor
    """`[B, num_queries]` int64."""


@dataclass(frozen=True, slots=True)
class AttentionBatch:
    """How a step's flattened row `[T]` lies in the KV cache."""

    slots: Tensor
    """`[T]` int64: where each token's key and value go."""
    groups: list[AttentionGroup]
    """Cover the row from left to right."""


@dataclass(slots=True)
class ShapeProbe:
    """Collects the layers' shapes during one forward whose values don't matter."""

    shapes: dict[int, KVShape] = field(default_factory=dict)
    num_calls: int = 0


class _Current(threading.local):
    step: tuple[KVCache, AttentionBatch] | None = None
    probe: ShapeProbe | None = None


_current = _Current()


@contextmanager
def attention_step(cache: KVCache, batch: AttentionBatch) -> Iterator[None]:
    """Run forwards inside against `cache`, laid out as `batch` says; for this thread only."""
    _current.step = (cache, batch)
    try:
        yield
    finally:
        _current.step = None


@torch.inference_mode()
def probe_layers(model: PreTrainedModel) -> ShapeProbe:
    """Run one forward of a model with paged attention, to learn each layer's shape.

    Raises:
        NotImplementedError: the model asks for something that isn't implemented here.
    """
    _current.probe = ShapeProbe()
    try:
        model(input_ids=torch.zeros(1, 2, dtype=torch.int64, device=model.device), use_cache=False)
        return _current.probe
    finally:
        _current.probe = None


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Store keys and values and attend to the cache; what transformers calls for each layer.

    Args:
        module: the attention module; its `layer_idx` picks the layer's cache.
        query: `[1, num_heads, T, head_dim]`.
        key: `[1, num_kv_heads, T, head_dim]`.
        value: `[1, num_kv_heads, T, value_dim]`.
        attention_mask: None, as no mask function is registered under this name.
        scaling: factor on the scores; by default `head_dim ** -0.5`.
        dropout: 0 outside of training.
        sliding_window: positions seen, own included.
        softcap: bound on the scores.
        kwargs: refused unless they are known not to change the result.

    Returns:
        `[1, T, num_heads, value_dim]` and no weights.

    Raises:
        NotImplementedError: the model asks for something that isn't implemented here.
    """
    _refuse_unknown(attention_mask, dropout, kwargs)
    layer = module.layer_idx
    assert isinstance(layer, int)
    if _current.probe is not None:
        _current.probe.num_calls += 1
        _current.probe.shapes[layer] = KVShape(key.shape[1], key.shape[3], value.shape[3])
        return _meaningless(query, value), None
    assert _current.step is not None, "a forward needs attention_step around it"
    cache, batch = _current.step
    keys, values = cache.layer(layer)
    store_kv(key[0].transpose(0, 1), value[0].transpose(0, 1), keys, values, batch.slots)
    rows = query[0].transpose(0, 1)  # [T, num_heads, head_dim]
    outs = [
        paged_attention(
            _rows_of(group, rows),
            keys,
            values,
            group.block_tables,
            group.query_positions,
            scaling=scaling if scaling is not None else query.shape[-1] ** -0.5,
            sliding_window=sliding_window,
            softcap=softcap,
        ).flatten(0, 1)
        for group in batch.groups
    ]
    return (outs[0] if len(outs) == 1 else torch.cat(outs))[None], None


AttentionInterface.register(PAGED_ATTENTION, attend)


_HARMLESS = frozenset(
    {
        "cache_position",
        "is_causal",
        "logits_to_keep",
        "output_attentions",
        "output_router_logits",
        "position_embeddings",
        "position_ids",
        "use_cache",
    }
)


def _refuse_unknown(mask: Tensor | None, dropout: float, kwargs: dict[str, Any]) -> None:
    unknown = sorted(k for k, v in kwargs.items() if k not in _HARMLESS and v is not None)
    if mask is not None:
        unknown.append("attention_mask")
    if dropout:
        unknown.append("dropout")
    if unknown:
        raise NotImplementedError(f"attention with {', '.join(unknown)}")


def _rows_of(group: AttentionGroup, rows: Tensor) -> Tensor:
    num_seqs = group.block_tables.shape[0]
    part = rows[group.start : group.start + num_seqs * group.num_queries]
    return part.view(num_seqs, group.num_queries, *part.shape[1:])


def _meaningless(query: Tensor, value: Tensor) -> Tensor:
    _, num_heads, num_tokens, _ = query.shape
    return query.new_zeros(1, num_tokens, num_heads, value.shape[3])
