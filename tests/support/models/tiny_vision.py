"""A tiny random model that reads images, with its processor and adapters."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny import tiny_tokenizer
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

IMAGE = "<image>"
SIZE, PATCH = 28, 14
"""Width and height of the pictures that the model sees, and of their patches, in pixels."""
TOKENS_PER_IMAGE = (SIZE // PATCH) ** 2
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{% for part in m.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Like many models' templates, this one reads only lists of parts."""
LATEST = "model.language_model."
NAMES = (LATEST, "language_model.model.", "model.")
"""Starts of the layers' names in adapters: of transformers' present releases, of those before 4.52,
and of the language model alone."""


def vision_tokenizer() -> PreTrainedTokenizerFast:
    """Return `tiny_tokenizer` with a token that marks images."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def tiny_vision_model() -> Any:
    """Return a random float32 LLaVA model of two layers and a vision tower of two."""
    tokenizer = vision_tokenizer()
    config = LlavaConfig(
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=512,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            initializer_range=0.2,
        ),
        vision_config=CLIPVisionConfig(
            hidden_size=64,
            intermediate_size=96,
            projection_dim=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=SIZE,
            patch_size=PATCH,
            initializer_range=0.2,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=TOKENS_PER_IMAGE,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config).eval().float()
    with torch.no_grad():  # otherwise a picture's tokens are too short to change an answer
        for parameter in model.model.multi_modal_projector.parameters():
            parameter.normal_(std=0.4)
    return model


def save_tiny_vision_model(folder: Path) -> Path:
    """Save the model and its processor to a folder for `--model`, and return it."""
    tiny_vision_model().save_pretrained(folder)
    file, tower = folder / "model.safetensors", "vision_tower."
    # Published checkpoints have these names, and vLLM expects them.
    named = {name.replace(tower, f"{tower}vision_model."): t for name, t in load_file(file).items()}
    save_file(named, file, {"format": "pt"})
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}
        ),
        tokenizer=vision_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
        chat_template=TEMPLATE,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        processor.save_pretrained(folder)
    return folder


def save_vision_adapter(folder: Path, *, seed: int, names: str = LATEST) -> Path:
    """Save a random adapter of the language model, whose tensors have one of the `NAMES`."""
    generator = torch.Generator().manual_seed(seed)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=4, target_modules=r".*language_model.*\.(q_proj|down_proj)"
    )
    wrapped = get_peft_model(tiny_vision_model(), config)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3, generator=generator)
    wrapped.save_pretrained(folder)
    if names != LATEST:
        file, start = folder / "adapter_model.safetensors", "base_model.model."
        tensors = load_file(file)
        save_file({n.replace(start + LATEST, start + names): t for n, t in tensors.items()}, file)
        fields = json.loads((folder / "adapter_config.json").read_text())
        fields["target_modules"] = ["q_proj", "down_proj"]
        (folder / "adapter_config.json").write_text(json.dumps(fields))
    return folder
