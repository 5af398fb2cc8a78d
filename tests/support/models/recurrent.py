"""Tiny models with recurrent layers: state spaces, linear attention and short convolutions."""

from pathlib import Path
from typing import Any

from tiny import roughen, tiny_tokenizer
from torch import manual_seed
from transformers import AutoModelForCausalLM, PreTrainedModel

from ops.lab.generate.models.tiny_config import tiny_config

TYPES = (
    *("qwen3_5_text", "qwen3_5_moe_text", "qwen3_next", "lfm2", "lfm2_moe", "granitemoehybrid"),
    *("kimi_linear", "falcon_h1", "nemotron_h", "olmo_hybrid", "bamba", "mamba2", "minimax"),
    *("bailing_hybrid", "zaya"),
)
"""Model types of transformers with recurrent layers that the native engine serves."""
REPRESENTATIVE = ("qwen3_5_text", "lfm2", "falcon_h1")
"""Types with linear attention, short convolutions, and a state space beside attention."""
_OTHER_FIELDS = {
    "nemotron_h": {
        "initializer_range": 0.08,
        "ssm_state_size": 16,
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "n_groups": 2,
    }
}
"""Fields of configurations: smaller states, and weights whose steps rounding doesn't decide."""
_STATE_SPACES = {"falcon_h1", "nemotron_h", "bamba", "mamba2", "granitemoehybrid"}
"""Types whose `out_proj` PEFT refuses."""


def recurrent_model(model_type: str, **fields: Any) -> PreTrainedModel:
    """Return a random float32 model of this type, with eager attention.

    `fields` replace fields of its configuration.
    """
    config = tiny_config(model_type)
    config.vocab_size = len(tiny_tokenizer())
    config.initializer_range = 0.2  # see tiny.py
    for name, value in {**_OTHER_FIELDS.get(model_type, {}), **fields}.items():
        setattr(config, name, value)
    manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return roughen(model.eval().float())


def save_recurrent(folder: Path, model_type: str) -> Path:
    """Save `recurrent_model` and a tokenizer to a folder for `--model`, and return it."""
    recurrent_model(model_type).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def targets(model_type: str, linears: list[str]) -> list[str]:
    """Return those of the served `linears` that PEFT can train by their full names."""
    refused = {"lm_head", *(["out_proj"] if model_type in _STATE_SPACES else [])}
    names = [name for name in linears if name.rpartition(".")[2] not in refused]
    # PEFT takes linears with such names for experts.
    return [name for name in names if "expert" not in name]
