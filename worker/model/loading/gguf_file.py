"""Reads base models from GGUF files, the format of llama.cpp: configuration, tokenizer and weights.

GGUF's specification defines the metadata, and llama.cpp's converter defines the tensors. The
package `gguf` parses files and dequantises tensors.
"""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer

from shared.errors import ModelRejected, first_line
from worker.model.loading.tensor_files import Piecewise, Place, Weight

_ARCHITECTURES = ("llama", "qwen2", "qwen3")
_FIELDS = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
    "num_attention_heads": "attention.head_count",
    "num_hidden_layers": "block_count",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}
"""Names of values in the file's metadata, by the name of the configuration's field."""
_MODULES = {"output": "lm_head", "output_norm": "model.norm", "token_embd": "model.embed_tokens"}
_OF_LAYERS = {
    "attn_k": "self_attn.k_proj",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    "attn_output": "self_attn.o_proj",
    "attn_q": "self_attn.q_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_v": "self_attn.v_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_up": "mlp.up_proj",
}
"""Names of a layer's modules in transformers, by their names in GGUF files."""
_ROPE_FACTORS = "rope_freqs.weight"
_LLAMA3 = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""Rotation parameters that are the same in all models with Llama 3's rotation."""
_END_TOKENS = ("eos_token_id", "eot_token_id", "eom_token_id")


class _File:
    """Metadata and tensors of a GGUF file."""

    def __init__(self, path: Path) -> None:
        # Most workers serve no GGUF file, and the GPU benchmark runs without this package.
        from gguf import GGUFReader, GGUFValueType

        reader = GGUFReader(path)
        self._fields = {
            name: field.contents()
            for name, field in reader.fields.items()
            if field.types[0] != GGUFValueType.ARRAY  # vocabularies take tens of megabytes
        }
        self.tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.architecture = str(self.field("general.architecture"))

    def field(self, name: str, default: Any = None) -> Any:
        """Return the value of a field of the metadata."""
        return self._fields.get(name, default)

    def of_model(self, name: str, default: Any = None) -> Any:
        """Return the value of the metadata field `<architecture>.<name>`."""
        return self.field(f"{self.architecture}.{name}", default)


def gguf_config(source: str, path: Path) -> Any:
    """Return the configuration of the model in the GGUF file `path`.

    Raises:
        ModelRejected: the file can't be read, or holds a model that Lorikeet doesn't know.
    """
    file = _opened(source, path)
    if file.architecture not in _ARCHITECTURES:
        raise ModelRejected(
            f"--model {source}: GGUF files of the architecture {file.architecture!r} can't be read "
            f"yet, only those of {', '.join(_ARCHITECTURES)}; serve the model that it was made from"
        )
    if file.field("split.count", 1) > 1:
        raise ModelRejected(
            f"--model {source} is one of several parts; merge them with `llama-gguf-split --merge`"
        )
    try:
        return AutoConfig.for_model(file.architecture, **_config_fields(file))
    except Exception as error:  # transformers raises error types of its own for bad values
        raise _unreadable(source, error) from error


@lru_cache(maxsize=1)
def _parsed(path: Path, changed_ns: int) -> _File:
    """Parse a GGUF file. With a large vocabulary, this takes seconds, so results are cached.

    `changed_ns` is the time at which the file was last changed.
    """
    return _File(path)


def _opened(source: str, path: Path) -> _File:
    try:
        return _parsed(path, path.stat().st_mtime_ns)
    except ModuleNotFoundError:
        raise ModelRejected(
            f"--model {source}: GGUF files need the package gguf; install it: pip install gguf"
        ) from None
    except Exception as error:  # the package raises many error types for broken files
        raise _unreadable(source, error) from error


def _unreadable(source: str, error: Exception) -> ModelRejected:
    return ModelRejected(
        f"--model {source}: this GGUF file can't be read ({first_line(error)}); download or "
        "convert it again"
    )


def _config_fields(file: _File) -> dict[str, Any]:
    fields = {name: file.of_model(key) for name, key in _FIELDS.items()}
    if absent := [_FIELDS[name] for name, value in fields.items() if value is None]:
        raise ValueError(f"it lacks {file.architecture}.{absent[0]}")
    heads = int(fields["num_attention_heads"])
    head_dim = int(file.of_model("attention.key_length", fields["hidden_size"] // heads))
    ends = [file.field(f"tokenizer.ggml.{name}") for name in _END_TOKENS]
    return {
        **fields,
        "num_key_value_heads": int(file.of_model("attention.head_count_kv", heads)),
        "head_dim": head_dim,
        "vocab_size": int(file.tensors["token_embd.weight"].shape[1]),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "attention_bias": "blk.0.attn_q.bias" in file.tensors,
        "rope_parameters": _rope(file, head_dim),
        "bos_token_id": file.field("tokenizer.ggml.bos_token_id"),
        "eos_token_id": list(dict.fromkeys(end for end in ends if end is not None)) or None,
    }


def _rope(file: _File, head_dim: int) -> dict[str, Any]:
    """Return the parameters of the rotary position encoding in transformers' form.

    Raises:
        ValueError: the file uses an unknown kind of rotation.
    """
    if file.of_model("rope.dimension_count", head_dim) != head_dim:
        raise ValueError("only a part of each head is rotated")
    theta = float(file.of_model("rope.freq_base", 10000.0))
    kind = file.of_model("rope.scaling.type", "none")
    factor = file.of_model("rope.scaling.factor")
    rope: dict[str, Any] = {"rope_theta": theta, "rope_type": "default"}
    if _ROPE_FACTORS in file.tensors:
        return rope | _llama3(file.tensors[_ROPE_FACTORS].data, theta, head_dim)
    if kind == "linear":
        return rope | {"rope_type": "linear", "factor": float(factor)}
    if kind == "yarn":
        length = int(file.of_model("rope.scaling.original_context_length"))
        yarn = {"factor": float(factor), "original_max_position_embeddings": length}
        return rope | {"rope_type": "yarn", **yarn}
    if kind != "none":
        raise ValueError(f"its rope.scaling.type is {kind}")
    return rope


def _llama3(factors: Any, theta: float, head_dim: int) -> dict[str, Any]:
    """Return the parameters of Llama 3's rotation from which a file's `factors` were computed.

    Raises:
        ValueError: the factors belong to another rotation.
    """
    low, high = _LLAMA3["low_freq_factor"], _LLAMA3["high_freq_factor"]
    factor = float(np.max(factors))
    lengths = 2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    share = (_LLAMA3["original_max_position_embeddings"] / lengths - low) / (high - low)
    share = np.clip(share, 0, 1)
    if not np.allclose(1 / ((1 - share) / factor + share), factors, rtol=1e-4):
        raise ValueError(f"{_ROPE_FACTORS} aren't the factors of Llama 3's rotation")
    return {"rope_type": "llama3", "factor": factor, **_LLAMA3}


def gguf_weights(source: str, path: Path, config: Any, place: Place) -> Mapping[str, Weight]:
    """Return the weights in the GGUF file `path` by their names in transformers.

    A weight is dequantised when it is read, and then converted to the type and device of `place`.
    The rows of queries and keys are put into transformers' order.

    Raises:
        ModelRejected: the file can't be read, or has an unknown tensor.
    """
    file = _opened(source, path)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    found: dict[str, Weight] = {}
    for name, tensor in file.tensors.items():
        if name == _ROPE_FACTORS:
            continue
        *_, part, _ = name.split(".")
        shape = [int(size) for size in reversed(tensor.shape)]
        rows = np.arange(shape[0])
        if file.architecture == "llama" and part in heads:
            rows = rows.reshape(heads[part], -1, 2).swapaxes(1, 2).flatten()
        values = Piecewise(shape, _rows_of(tensor, rows), place)
        found[_name_in_transformers(source, name)] = values
    return found


def _rows_of(tensor: Any, order: Any) -> Callable[[], Callable[[slice], Tensor]]:
    from gguf import dequantize

    def rows(part: slice) -> Tensor:
        return torch.from_numpy(np.array(dequantize(tensor.data[order[part]], tensor.tensor_type)))

    return lambda: rows


def _name_in_transformers(source: str, name: str) -> str:
    match name.split("."):
        case [module, "weight"] if module in _MODULES:
            return f"{_MODULES[module]}.weight"
        case ["blk", layer, module, "weight" | "bias" as kind] if module in _OF_LAYERS:
            return f"model.layers.{layer}.{_OF_LAYERS[module]}.{kind}"
    raise ModelRejected(
        f"--model {source}: its tensor {name} isn't known; serve the model that it was made from"
    )


def gguf_tokenizer(source: str, path: Path) -> Any:
    """Return the tokenizer in the GGUF file `path`, with the chat template.

    Raises:
        ModelRejected: transformers can't read the tokenizer, or doesn't know the rule by which it
            splits text into words.
    """
    file = _opened(source, path)
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    if file.field("tokenizer.ggml.model") == "gpt2":
        _set_split(source, tokenizer, str(file.field("tokenizer.ggml.pre")))
    return tokenizer


def _set_split(source: str, tokenizer: Any, rule: str) -> None:
    """Make the tokenizer split text by `rule`. A GGUF file has only the name of this rule.

    Raises:
        ModelRejected: transformers doesn't know the rule.
    """
    from tokenizers import pre_tokenizers

    from worker.upstream.gguf_tokenizers import GGUF_PRE_TOKENIZER_SPLITS

    if rule == "smollm":
        bytes_of_words = pre_tokenizers.ByteLevel(add_prefix_space=False)
        digits = pre_tokenizers.Digits(individual_digits=True)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [digits, bytes_of_words]
        )
    elif rule not in {"gpt-2", *GGUF_PRE_TOKENIZER_SPLITS}:
        raise ModelRejected(
            f"--model {source}: its tokenizer splits text by the rule {rule!r}, which transformers "
            "doesn't know; serve the model that it was made from"
        )
