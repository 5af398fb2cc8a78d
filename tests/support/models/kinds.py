"""PEFT configurations of every supported kind of adapter besides plain LoRA on linears."""

from typing import Any

ATTENTION = {
    "gpt_neox": ["query_key_value", "dense"],
    "gpt2": ["attn.c_attn", "attn.c_proj"],
    "phi3": ["qkv_proj", "o_proj"],
    "phi": ["q_proj", "k_proj", "v_proj", "self_attn.dense"],
}
EMBEDDING = {"gpt_neox": "embed_in", "gpt2": "wte"}
NORMS = {"gpt_neox": ["layernorm"], "gpt2": ["ln_1", "ln_f"], "phi": ["layernorm"]}
TOKENS = [*range(90, 40, -1), 3, 200]
QKVO = ["q_proj", "k_proj", "v_proj", "o_proj"]


def attention(model_type: str) -> list[str]:
    """Return `target_modules` for the linears of a model's attention."""
    return ATTENTION.get(model_type, QKVO)


def tied_kinds(model_type: str) -> dict[str, dict[str, Any]]:
    """Return the additional kinds for a model whose head is tied to its embedding.

    PEFT ties only embeddings named `embed_tokens`. For GPT-2 it drops the tie when it saves.
    """
    if model_type in EMBEDDING:
        return {}
    first = attention(model_type)[0]
    fields = {"r": 8, "ensure_weight_tying": True}
    return {
        "a tied head": fields | {"target_modules": [first, "lm_head"]},
        "a tied embedding": fields | {"target_modules": ["embed_tokens"], "use_dora": True},
        "tied by a regex": fields | {"target_modules": rf"(.*\.)?({first}|lm_head)"},
        "a saved pair": fields | {"target_modules": [first], "modules_to_save": ["lm_head"]},
        "tokens of a pair": fields | {"target_modules": [first], "trainable_token_indices": TOKENS},
        "no tie, as neither is targeted": fields | {"target_modules": [first]},
    }


def kinds(model_type: str) -> dict[str, dict[str, Any]]:
    """Return the fields of a `LoraConfig` for each kind, by name."""
    first = attention(model_type)[0]
    embedding = EMBEDDING.get(model_type, "embed_tokens")
    plain = {
        "r": 8,
        "lora_alpha": 12,
        "target_modules": attention(model_type),
        "fan_in_fan_out": model_type == "gpt2",
    }
    patterns = {"rank_pattern": {first: 24}, "alpha_pattern": {first: 40}, "use_rslora": True}
    return {
        "a bias on B": plain | {"lora_bias": True},
        "a bias on B, rsLoRA and patterns": plain | patterns | {"lora_bias": True},
        "all biases": plain | {"bias": "all"},
        "biases of targets": plain | {"bias": "lora_only", "target_modules": [first]},
        "DoRA": plain | {"use_dora": True},
        "DoRA, rsLoRA and patterns": plain | patterns | {"use_dora": True},
        "DoRA on one module": plain | {"use_dora": True, "target_modules": [first]},
        "DoRA and biases": plain | {"use_dora": True, "bias": "all"},
        "head": plain | {"target_modules": [first, "lm_head"]},
        "head alone": plain | {"target_modules": ["lm_head"], "lora_alpha": 40},
        "embedding": plain | {"target_modules": [first, embedding]},
        "embedding alone": plain | {"target_modules": [embedding]},
        "embedding and head": plain | patterns | {"target_modules": [embedding, "lm_head", first]},
        "DoRA on all": plain | {"use_dora": True, "target_modules": [embedding, "lm_head", first]},
        "saved norms": plain | {"modules_to_save": NORMS.get(model_type, ["norm"])},
        "saved head": plain | {"modules_to_save": ["lm_head"]},
        "saved embedding": plain | {"modules_to_save": [embedding]},
        "saved embedding and head": plain | {"modules_to_save": ["lm_head", embedding]},
        "a saved linear beside DoRA": plain
        | {"modules_to_save": attention(model_type)[-1:], "use_dora": True},
        "tokens": plain | {"trainable_token_indices": TOKENS},
        **(
            {
                "tokens of the head": plain | {"trainable_token_indices": {"lm_head": TOKENS}},
                "tokens of both": plain
                | {"trainable_token_indices": {embedding: TOKENS, "lm_head": TOKENS[:30]}},
            }
            if model_type != "phi"  # its head has a bias, which PEFT would drop
            else {}
        ),
    }
