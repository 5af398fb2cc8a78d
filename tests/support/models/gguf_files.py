"""Writes tiny models as GGUF files, as llama.cpp's converter does."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from tiny import CHAT_TEMPLATE, tiny_tokenizer
from torch import Tensor

SIZES = {"hidden_size": 256, "intermediate_size": 256}
"""Sizes of which each row is a whole number of the largest blocks."""
MERGE = ("h", "e")
"""The only merge of the tokenizer. Without one, a file has no list of them."""
VOCAB_SIZE = len(tiny_tokenizer()) + 1
_LAYER = {
    "input_layernorm": "attn_norm",
    "mlp.down_proj": "ffn_down",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.k_proj": "attn_k",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.v_proj": "attn_v",
}
_OTHERS = {"lm_head": "output", "model.embed_tokens": "token_embd", "model.norm": "output_norm"}
_CONTROL, _NORMAL = 3, 1


def save_gguf(
    path: Path, model: Any, kind: Type, rope_factors: Tensor | None = None, **metadata: Any
) -> dict[str, Tensor]:
    """Save `model` with its matrices in the type `kind`. Return its dequantised weights.

    A type that the package `gguf` can't quantise to gets random blocks. `rope_factors` are those
    of the rotation. `metadata` has further fields, by their names with `__` in place of a dot.
    """
    config = model.config
    writer = gguf.GGUFWriter(path, config.model_type)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if config.model_type == "qwen3":
        writer.add_key_length(config.head_dim)
    _add_tokenizer(writer)
    for name, value in metadata.items():
        add = writer.add_string if isinstance(value, str) else writer.add_uint32
        add(name.replace("__", "."), value)
    if rope_factors is not None:
        writer.add_tensor("rope_freqs.weight", rope_factors.numpy())
    values = {}
    for name, weight in model.state_dict().items():
        values[name] = _add_tensor(writer, name, weight, kind, config)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


def _add_tokenizer(writer: gguf.GGUFWriter) -> None:
    tokenizer = tiny_tokenizer()
    tokens = [*tokenizer.convert_ids_to_tokens(range(len(tokenizer))), "".join(MERGE)]
    special = set(tokenizer.all_special_tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([_CONTROL if token in special else _NORMAL for token in tokens])
    writer.add_token_merges([" ".join(MERGE)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _add_tensor(
    writer: gguf.GGUFWriter, name: str, weight: Tensor, kind: Type, config: Any
) -> Tensor:
    """Add a tensor, and return its dequantised values in the order of transformers."""
    part = name.split(".")[-2]
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    is_permuted = config.model_type == "llama" and part in heads
    rows = torch.arange(len(weight))
    if is_permuted:  # the first and the second halves of each head alternate
        rows = rows.unflatten(0, (heads[part], 2, -1)).transpose(1, 2).flatten()
    data = weight[rows].float().numpy()
    kind = kind if weight.dim() == 2 else Type.F32
    stored = _quantised(data, kind)
    writer.add_tensor(_name(name), stored, raw_dtype=kind)
    values = torch.empty_like(weight)
    values[rows] = torch.from_numpy(np.array(gguf.dequantize(stored, kind)))
    return values


def _quantised(data: Any, kind: Type) -> Any:
    try:
        return gguf.quantize(data, kind)
    except NotImplementedError:
        return _random_blocks(data.shape, kind)


def _random_blocks(shape: tuple[int, ...], kind: Type) -> Any:
    """Return blocks of random numbers with scales near 0.002, which gives usual weights."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    generator = np.random.default_rng(shape[0])
    blocks = generator.integers(0, 256, (shape[0], shape[1] // block, size), dtype=np.uint8)
    scale = np.frombuffer(np.float16(0.002).tobytes(), np.uint8)
    starts = {Type.Q6_K: [size - 2], Type.Q3_K: [size - 2], Type.Q2_K: [size - 4, size - 2]}
    for start in starts.get(kind, [0, 2]):
        blocks[..., start : start + 2] = scale
    return blocks.reshape(shape[0], -1)


def _name(name: str) -> str:
    module, _, end = name.rpartition(".")
    if module in _OTHERS:
        return f"{_OTHERS[module]}.{end}"
    _, _, layer, part = module.split(".", 3)
    return f"blk.{layer}.{_LAYER[part]}.{end}"
