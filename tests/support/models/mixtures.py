"""Tiny models with mixtures of experts."""

from recurrent import recurrent_model
from transformers import PreTrainedModel

from worker.lora.base.modules import BaseModules, place_in_layer

TYPES = (
    *("qwen3_moe", "mixtral", "glm4_moe", "gpt_oss", "granitemoe", "nemotron_h", "lfm2_moe"),
    *("qwen3_5_moe_text", "deepseek_v3"),
)
REPRESENTATIVE = ("qwen3_moe", "gpt_oss", "deepseek_v3")
"""Types with experts stored as `[out, in]`, as `[in, out]` with biases, and beside shared ones."""


def mixture_model(model_type: str) -> PreTrainedModel:
    """Return a random float32 model of this type, with eager attention."""
    fields = {"first_k_dense_replace": 1} if model_type == "deepseek_v3" else {}
    return recurrent_model(model_type, **fields)


def parameters(base: BaseModules) -> list[str]:
    """Return `target_parameters` for the weights of all experts and routers."""
    return sorted({place_in_layer(name) for name in base.experts})
