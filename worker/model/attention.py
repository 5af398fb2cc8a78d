"""Paged attention for models of the transformers library.

The tokens of all requests in a step are concatenated into one row `[1, T]`. The attention function
reads the step's layout from a thread-local context, because not all models pass extra keyword
arguments down to it.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from worker.kernels.interface import AttentionBatch, AttentionParams, Kernels
from worker.model.kv_cache import KVCache, KVShape
from worker.model.recurrent import RecurrentStep
from worker.upstream.attention import AttentionInterface

PAGED_ATTENTION = "lorikeet_paged"
"""Name under which `attend` is registered in transformers."""


CHUNKED_LAYER = "chunked_attention"
"""Entry of a configuration's `layer_types` for layers that attend within chunks."""


class UnsupportedAttention(NotImplementedError):
    """The model uses an attention feature that isn't implemented here; the message names it."""


@dataclass(slots=True)
class LayerProbe:
    """Attention shapes and parameters by layer, collected during one forward pass."""

    shapes: dict[int, KVShape] = field(default_factory=dict)
    params: dict[int, AttentionParams] = field(default_factory=dict)
    num_calls: int = 0


@dataclass(frozen=True, slots=True)
class AttentionStep:
    """Kernels, KV cache and token layout that the attention of one forward pass uses."""

    kernels: Kernels
    cache: KVCache
    batch: AttentionBatch
    recurrent: RecurrentStep | None = None
    """States that the recurrent layers use. None for a model without such layers."""


class _Current(threading.local):
    step: AttentionStep | None = None
    probe: LayerProbe | None = None


_current = _Current()


@contextmanager
def attention_step(step: AttentionStep) -> Iterator[None]:
    """Use `step` for forward passes inside the context, in this thread only."""
    _current.step = step
    try:
        yield
    finally:
        _current.step = None


def current_step() -> AttentionStep:
    """Return the step of the forward pass that runs in this thread."""
    assert _current.step is not None, "a forward needs attention_step around it"
    return _current.step


def current_recurrent() -> RecurrentStep:
    """Return the states of the forward pass that runs in this thread."""
    recurrent = current_step().recurrent
    assert recurrent is not None, "a forward of recurrent layers needs their states"
    return recurrent


@torch.inference_mode()
def probe_layers(model: PreTrainedModel) -> LayerProbe:
    """Run one forward pass and record the shapes and parameters that each layer passes to `attend`.

    Raises:
        UnsupportedAttention: the model uses an attention feature that isn't implemented here.
    """
    _current.probe = LayerProbe()
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
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Store keys and values, and compute attention. Transformers calls this in each layer.

    Args:
        module: the attention module. Its `layer_idx` selects the layer's cache.
        query: `[1, num_heads, T, head_dim]`.
        key: `[1, num_kv_heads, T, head_dim]`.
        value: `[1, num_kv_heads, T, value_dim]`.
        attention_mask: None, because no mask function is registered for PAGED_ATTENTION.
        scaling: factor on the scores, by default `head_dim ** -0.5`.
        dropout: 0, because the model isn't training.
        sliding_window: number of positions that a token attends to, including its own.
        softcap: bound on the scores.
        s_aux: `[num_heads]`, the query heads' attention sinks.
        kwargs: other arguments. Those that could change the result are refused.

    Returns:
        `[1, T, num_heads, value_dim]`, and None instead of the attention weights.

    Raises:
        UnsupportedAttention: the model uses an attention feature that isn't implemented here.
    """
    _refuse_unknown(attention_mask, dropout, kwargs)
    layer = _layer_of(module)
    params = AttentionParams(
        scaling if scaling is not None else query.shape[-1] ** -0.5,
        sliding_window,
        softcap,
        _chunk_size(module, layer),
        s_aux,
    )
    if (probe := _current.probe) is not None:
        probe.num_calls += 1
        probe.shapes[layer] = KVShape(key.shape[1], key.shape[3], value.shape[3])
        probe.params[layer] = params
        return query.new_zeros(1, query.shape[2], query.shape[1], value.shape[3]), None
    query, key, value = (part[0].transpose(0, 1) for part in (query, key, value))
    return store_and_attend(layer, query, key, value, params)[None], None


def _layer_of(module: nn.Module) -> int:
    layer: Any = module.layer_idx
    if layer is None or layer < 0:
        raise UnsupportedAttention("one attention module in several layers")
    number: int = layer
    return number


def _chunk_size(module: nn.Module, layer: int) -> int | None:
    """Return the number of positions in a layer's attention chunks, or None if it has no chunks.

    It is taken from the configuration, because the attention modules don't know it: models apply
    chunks only in the attention mask.
    """
    config: Any = getattr(module, "config", None)
    chunk_size: int | None = getattr(config, "attention_chunk_size", None)
    is_chunked = chunk_size is not None and config.layer_types[layer] == CHUNKED_LAYER
    return chunk_size if is_chunked else None


def store_and_attend(
    layer: int, query: Tensor, key: Tensor, value: Tensor, params: AttentionParams
) -> Tensor:
    """Store keys and values, and return one layer's attention, `[T, num_heads, value_dim]`.

    `query`, `key` and `value` are `[T, heads, dim]`, for the tokens of the current step.
    """
    step = current_step()
    cache = step.cache.layer(layer)
    step.kernels.store_kv(key, value, *cache, step.batch.slots)
    return step.kernels.paged_attention(query, cache, step.batch, params)


AttentionInterface.register(PAGED_ATTENTION, attend)


_IGNORED_ARGUMENTS = frozenset(
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
    unknown = sorted(k for k, v in kwargs.items() if k not in _IGNORED_ARGUMENTS and v is not None)
    if mask is not None:
        unknown.append("attention_mask")
    if dropout:
        unknown.append("dropout")
    if unknown:
        raise UnsupportedAttention(f"attention with {', '.join(unknown)}")
