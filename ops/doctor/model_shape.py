"""Reads a base model's size and shape from its configuration, without its weights.

Importing this module imports torch and transformers, which takes seconds.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedModel, logging

from shared.errors import ModelRejected, first_line
from worker.kernels.cpu.quantised import BYTES_PER_WEIGHT
from worker.lora.base.linear import can_join
from worker.lora.base.modules import is_expert, module_shape
from worker.model.cache_shape import CacheShape
from worker.model.kv_cache import KVShape
from worker.model.loading.architecture import longest_context, read_config
from worker.model.loading.conditional import model_of_config
from worker.model.loading.probe import probe_cache
from worker.model.loading.quantisation import quantisation_of
from worker.model.memory_policy import layer_width
from worker.model.quantise import Quantize
from worker.upstream.linears import Conv1D

DEMO_CONFIG = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
"""Configuration of the demo's base model, which is converted at the first start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """Size and shape of a base model."""

    architecture: str
    num_parameters: int
    weight_bytes: int
    max_model_len: int
    dtype: torch.dtype
    cache: CacheShape
    """What a worker keeps of each sequence between steps."""
    linear_widths: int
    """Sum of the input and output widths of all linears that adapters may target."""
    width: int
    """Sum of the widths of a layer's intermediate results, in elements."""
    vocab_size: int

    def adapter_bytes(self, rank: int) -> int:
        """Return the size of an adapter of `rank` on all linears."""
        return rank * self.linear_widths * self.dtype.itemsize


def served_shape(
    source: str, folder: Path, dtype: torch.dtype, quantize: Quantize | None = None
) -> ModelShape:
    """Return the shape of the model in `folder` as the native engine would serve it.

    If `quantize` is set, the sizes are those of the model with quantised linears.

    Raises:
        ModelRejected: the configuration shows that the engine can't serve the model.
    """
    logging.set_verbosity_error()
    config = read_config(source, folder)
    quantisation_of(source, config)  # raises ModelRejected for weights that can't be dequantised
    return _shape(source, config, dtype, quantize)


def demo_shape(dtype: torch.dtype, quantize: Quantize | None = None) -> ModelShape:
    """Return the shape of the demo's base model; see `served_shape`."""
    return _shape("demo", AutoConfig.for_model(**DEMO_CONFIG), dtype, quantize)


def _shape(source: str, config: Any, dtype: torch.dtype, quantize: Quantize | None) -> ModelShape:
    try:
        with torch.device("meta"):
            model = model_of_config(config, dtype).eval()  # in training, some models drop values
    except Exception as error:  # transformers raises many error types
        raise ModelRejected(f"--model {source}: {first_line(error)}") from error
    text = model.config.get_text_config()
    return ModelShape(
        architecture=type(model).__name__,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        weight_bytes=int(model.get_memory_footprint()) - _saved_bytes(model, quantize),
        max_model_len=longest_context(text),
        dtype=dtype,
        cache=_cache_shape(source, model),
        linear_widths=_linear_widths(model),
        width=layer_width(text.hidden_size, getattr(text, "intermediate_size", None)),
        vocab_size=int(text.vocab_size),
    )


def _saved_bytes(model: PreTrainedModel, quantize: Quantize | None) -> int:
    """Return by how many bytes the model gets smaller if its linears are quantised."""
    if quantize is None:
        return 0
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    is_tied = head is not None and getattr(embedding, "weight", None) is head.weight
    saved = 0
    for name, module in model.named_modules():
        if can_join(module) and not is_expert(name):
            # The quantised copy of a head that shares the embedding's weight takes extra memory.
            before = 0 if module is head and is_tied else module.weight.nbytes
            saved += int(before) - round(module.weight.numel() * BYTES_PER_WEIGHT)
    return saved


def _cache_shape(source: str, model: PreTrainedModel) -> CacheShape:
    """Return what the model keeps of each sequence.

    It is found by a trial run, or taken from the configuration if a trial run isn't possible.
    """
    config = model.config.get_text_config()
    try:
        return probe_cache(source, model)[1]
    except ModelRejected:
        raise
    except Exception:  # noqa: BLE001  (a model without weights can raise any error)
        num_layers = int(config.num_hidden_layers)
        return CacheShape([_usual_kv_shape(config)] * num_layers, model.dtype)


def _usual_kv_shape(config: Any) -> KVShape:
    num_heads = int(config.num_attention_heads)
    num_kv_heads = int(getattr(config, "num_key_value_heads", None) or num_heads)
    dim = int(getattr(config, "head_dim", None) or config.hidden_size // num_heads)
    return KVShape(num_kv_heads, dim, dim)


def _linear_widths(model: PreTrainedModel) -> int:
    head = model.get_output_embeddings()
    linears = [
        module_shape(module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head and not is_expert(name)
    ]
    return sum(linear.in_features + linear.out_features for linear in linears)
