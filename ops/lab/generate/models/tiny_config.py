"""Shrinks the default configuration of a model type, so that its model has few weights."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, PreTrainedTokenizerFast

_FIELDS = json.loads(Path(__file__).with_name("tiny_fields.json").read_bytes())


def _values(groups: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: group["value"] for group in groups for name in group["fields"]}


_SIZES = _values(_FIELDS["sizes"])
"""Small values of configuration fields, by field name.

A value applies to every model type whose configuration has the field.
"""
_FOR_VLLM = _values(_FIELDS["for_vllm"])
"""Values that replace those in `_SIZES` for vLLM, by field name.

They are larger, because vLLM's attention on CPUs has no kernels for smaller heads.
"""
VOCAB_SIZE: int = _SIZES["vocab_size"]
"""Number of tokens of each tiny model."""
_OF_TYPE: dict[str, dict[str, Any]] = _FIELDS["of_type"]
"""Values of configuration fields by model type, for types that need other values than `_SIZES`."""


def tiny_config(model_type: str, *, for_vllm: bool = False) -> Any:
    """Return a configuration of this type for a model of a few layers.

    The model keeps one layer of each kind that the default configuration has.
    """
    return _tiny(AutoConfig.for_model(model_type), model_type, _FOR_VLLM if for_vllm else {})


def _tiny(default: Any, model_type: str, larger: dict[str, Any]) -> Any:
    fields = _tiny_fields(default, larger) | _OF_TYPE.get(model_type, {})
    return type(default)(**fields | {name: larger[name] for name in fields.keys() & larger})


def _tiny_fields(default: Any, larger: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    sizes = _SIZES | larger
    given = default.to_dict()
    num_layers = given.get("num_hidden_layers")
    per_layer = {name: value for name, value in given.items() if _is_list_of(value, num_layers)}
    layers = _kept_layers(per_layer.values())
    for name, value in given.items():
        if isinstance(value, dict) and hasattr(part := getattr(default, name), "to_dict"):
            fields[name] = _tiny(part, part.model_type, larger)
        elif name in sizes and value is not None:
            fields[name] = sizes[name]
        elif name in per_layer:
            fields[name] = [value[layer] for layer in layers]
        elif num_layers and value == list(range(num_layers)):
            fields[name] = list(range(len(layers) or _SIZES["num_hidden_layers"]))
    if layers:
        fields["num_hidden_layers"] = len(layers)
    if "qk_rope_head_dim" in fields:
        fields.pop("head_dim", None)  # derived from the parts of a head
        fields["num_key_value_heads"] = _SIZES["num_attention_heads"]
    return fields


def _is_list_of(value: Any, num_layers: int | None) -> bool:
    """Return whether `value` is a list with one item per layer, but isn't `[0, 1, ...]`."""
    return isinstance(value, list) and len(value) == num_layers and value != list(range(num_layers))


def _kept_layers(lists: Iterable[list[Any]]) -> list[int]:
    """Return the first layer of each kind, or the first two layers if all are of one kind."""
    first: dict[Any, int] = {}
    for layer, kind in enumerate(zip(*lists, strict=True)):
        first.setdefault(kind, layer)
    layers = sorted(first.values())
    return [0, 1] if len(layers) == 1 else layers


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer that maps each byte to one token."""
    special = ["<pad>", "<bos>", "<eos>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )
