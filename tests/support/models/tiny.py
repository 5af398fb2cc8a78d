"""Tiny random models, tokenizers and adapters, created in the test that needs them."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma2", "gpt_neox", "mixtral")

_COMMON = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
    # With the usual 0.02, all logits of such a small model are nearly equal, and comparisons of
    # greedy answers are decided by rounding.
    "initializer_range": 0.2,
}
_OF_TYPE: dict[str, dict[str, Any]] = {
    "gemma2": {"head_dim": 16, "sliding_window": 8},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "sliding_window": 8,
        "activation_sparsity_pattern": [0.95, 0.95, 0.0, 0.0],
        "head_dim": 16,
        "hidden_size_per_layer_input": 32,
        "vocab_size_per_layer_input": 320,
        "laurel_rank": 16,
    },
    "glm4": {"head_dim": 16},
    "gpt_oss": {
        "head_dim": 16,
        "sliding_window": 8,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
    "granite_swa": {
        "layer_types": ["full_attention", "sliding_attention"],
        "sliding_window": 8,
        "attention_multiplier": 0.25,
        "residual_multiplier": 0.5,
    },
    "llama4_text": {
        "head_dim": 16,
        "attention_chunk_size": 8,
        "no_rope_layer_interval": 2,
        "floor_scale": 8,
        "attn_scale": 0.5,
        "intermediate_size_mlp": 96,
        "num_local_experts": 4,
        "interleave_moe_layer_step": 2,
    },
    "qwen3": {"head_dim": 16},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
}

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer without merges, which maps each byte to one token."""
    specials = ["<pad>", "<bos>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(specials + alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<|end|>",
        additional_special_tokens=specials[3:],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def chat_ids(
    template: str, messages: Sequence[dict[str, str]], tools: Sequence[Any] | None
) -> list[int]:
    """Return the tokens of a chat that a template renders, up to the header of the answer."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    text = tokenizer.apply_chat_template(
        list(messages), tools=tools, tokenize=False, add_generation_prompt=True
    )
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def tiny_model(model_type: str = "llama", *, seed: int = 0, **overrides: Any) -> PreTrainedModel:
    """Return a random float32 model of two layers, with eager attention."""
    vocab_size = len(tiny_tokenizer())
    config = AutoConfig.for_model(
        model_type,
        **{**_COMMON, "vocab_size": vocab_size, **_OF_TYPE.get(model_type, {}), **overrides},
    )
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return model.eval().float()


def save_tiny_model(
    folder: Path, model_type: str = "llama", *, seed: int = 0, **overrides: Any
) -> Path:
    """Save `tiny_model` and `tiny_tokenizer` to a folder for `--model`, and return it."""
    tiny_model(model_type, seed=seed, **overrides).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def roughen(model: PreTrainedModel, *, seed: int = 7) -> PreTrainedModel:
    """Add noise to the biases and norms of `model`, which are initialised to 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def save_adapter(
    folder: Path,
    model_type: str = "llama",
    *,
    base: PreTrainedModel | None = None,
    seed: int = 1,
    scale: float = 0.3,
    **config: Any,
) -> Path:
    """Save a random adapter that changes the answers to a folder for `--adapters`, and return it.

    The adapter belongs to `base`, or to `tiny_model(model_type)` by default. `scale` is the
    standard deviation of the noise on its parameters.
    """
    generator = torch.Generator().manual_seed(seed)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # PEFT's advice on training
        base = base if base is not None else tiny_model(model_type)
        wrapped = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **config))
        for name, parameter in wrapped.named_parameters():
            noise = torch.empty_like(parameter)
            if "lora_magnitude" in name:
                parameter.mul_(1 + noise.normal_(std=scale, generator=generator))
            elif "lora_" in name:
                parameter.normal_(std=scale, generator=generator)
            elif parameter.requires_grad:
                parameter.add_(noise.normal_(std=scale, generator=generator))
        wrapped.save_pretrained(folder)
    return folder


def save_adapters(
    root: Path, configs: Mapping[str, Mapping[str, Any]], model_type: str = "llama"
) -> dict[str, Path]:
    """Save an adapter of each configuration, with other weights, and return the folders by name."""
    return {
        name: save_adapter(root / name, model_type, seed=seed, **config)
        for seed, (name, config) in enumerate(configs.items())
    }
