"""Tiny multimodal models, with a tower for images."""

from pathlib import Path
from typing import Any

import torch
from tiny import roughen, tiny_tokenizer
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel

_TEXT = {
    "vocab_size": len(tiny_tokenizer()),
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    # As in tiny.py: with a smaller value, rounding decides comparisons of greedy answers.
    "initializer_range": 0.2,
}
_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
_LAYERS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}
_MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
_QWEN_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "depth": 1,
    "num_heads": 2,
    "out_hidden_size": 64,
    "deepstack_visual_indexes": [0],
}
_PARTS: dict[str, dict[str, Any]] = {
    "gemma3": {
        "text_config": {"model_type": "gemma3_text", **_TEXT, **_LAYERS},
        "vision_config": {"model_type": "siglip_vision_model", **_TOWER},
        "mm_tokens_per_image": 4,
    },
    "gemma4": {
        "text_config": {
            "model_type": "gemma4_text",
            **_TEXT,
            **_LAYERS,
            "global_head_dim": 16,
            "hidden_size_per_layer_input": 0,
            "num_kv_shared_layers": 0,
            "vocab_size_per_layer_input": _TEXT["vocab_size"],
        },
        "vision_config": {
            "model_type": "gemma4_vision",
            **_TOWER,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "position_embedding_size": 64,
        },
        "audio_config": None,
    },
    "mistral3": {
        "text_config": {"model_type": "mistral", **_TEXT, "sliding_window": None},
        "vision_config": {"model_type": "pixtral", **_TOWER, "head_dim": 16},
    },
    "qwen3_vl": {
        "text_config": {"model_type": "qwen3_vl_text", **_TEXT, "rope_parameters": _MROPE},
        "vision_config": {"model_type": "qwen3_vl", **_QWEN_TOWER},
    },
}
TYPES = tuple(_PARTS)


def conditional_model(model_type: str, **fields: Any) -> PreTrainedModel:
    """Return a random float32 model of this type with its tower, and with eager attention."""
    config = AutoConfig.for_model(
        model_type, **{**_PARTS[model_type], "tie_word_embeddings": False, **fields}
    )
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForImageTextToText.from_config(
        config, attn_implementation="eager"
    )
    return roughen(model.eval().float())


def save_conditional(folder: Path, model_type: str) -> Path:
    """Save `conditional_model` and `tiny_tokenizer` to a folder for `--model`, and return it."""
    conditional_model(model_type).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
