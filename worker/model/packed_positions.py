"""Provides positions to attention modules that compute them from the length of a cache.

Llama 4 scales the queries of some layers by their positions. The attention module counts these
positions upwards from the number of tokens in transformers' cache. The rows of a step have no such
cache, and belong to several sequences.
"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from worker.upstream.caches import CacheStandIn

_CACHE_LENGTH = "get_seq_length"
"""Method of transformers' caches that returns their number of tokens."""
_CACHES = ("cache", "past_key_values")
"""Names of a layer's argument for the cache, in different versions of transformers."""


def use_packed_positions(model: nn.Module) -> None:
    """Let attention modules use the position of each row instead of the length of a cache.

    The model must call its layers with `position_ids` and with an argument for the cache, which may
    be None.
    """
    for layer in model.modules():
        if any(_reads_length(child) for child in layer.children()):
            layer.register_forward_pre_hook(_replace_cache, with_kwargs=True)


class _PackedLengths(CacheStandIn):
    """Replaces transformers' cache as an argument of layers. Stores no keys or values."""

    def __init__(self, position_ids: Tensor) -> None:
        self._positions = position_ids[0]

    def get_seq_length(self, layer_idx: int = 0) -> Tensor:
        """Return each row's position minus the row's index in the step, `[T]`."""
        return self._positions - torch.arange(len(self._positions), device=self._positions.device)

    def update(self, key: Tensor, value: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Return `key` and `value` unchanged: those of the step's tokens only."""
        return key, value


def _replace_cache(
    _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if (position_ids := kwargs.get("position_ids")) is not None:
        lengths = _PackedLengths(position_ids)
        kwargs |= {name: lengths for name in _CACHES if name in kwargs}
    return args, kwargs


def _reads_length(module: nn.Module) -> bool:
    code = getattr(inspect.unwrap(module.forward), "__code__", None)
    return hasattr(module, "layer_idx") and code is not None and _CACHE_LENGTH in code.co_names
