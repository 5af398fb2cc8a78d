"""Refuses base models whose configuration shows that the native engine can't serve them."""

import json
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig

from shared.errors import ModelRejected, first_line
from worker.model.loading.chatglm import glm_config
from worker.model.loading.conditional import conditional_class, has_text_class
from worker.model.loading.folder import is_chatglm
from worker.model.loading.gguf_file import gguf_config
from worker.model.loading.refusals import OTHER_ENGINE
from worker.model.verify import check_rope
from worker.upstream.model_classes import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
)

_SERVED_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}
_SERVED_LAYERS |= {"linear_attention", "conv", "mamba", "hybrid", "hybrid_sliding"}
_SERVED_LAYERS |= {"attention", "mlp", "moe"}
_UNLIMITED_CONTEXT = 1 << 17
"""Context in tokens of a model whose configuration names no limit."""
_MEDIA_PARTS = ("vision_config", "audio_config")
"""Configuration fields that describe the parts of a model that read images, video or sound."""


def read_config(source: str, folder: Path) -> Any:
    """Return transformers' configuration of the model in `folder`, which may be a GGUF file.

    Raises:
        ModelRejected: the configuration is missing or broken, or describes a model that the native
            engine can't serve.
    """
    if folder.is_file():
        config = gguf_config(source, folder)
    elif is_chatglm(folder):
        return glm_config(source, folder)
    else:
        config = _config_of(source, folder)
    _check_kind(source, config)
    _check_layers(source, config)
    check_rope(source, config)
    return config


def longest_context(config: Any) -> int:
    """Return the longest context that a model supports, in tokens."""
    return int(getattr(config, "max_position_embeddings", None) or _UNLIMITED_CONTEXT)


def _config_of(source: str, folder: Path) -> Any:
    _refuse_adapter(source, folder)
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises many error types for broken folders
        _refuse_unknown(source, folder)
        raise ModelRejected(f"--model {source}: AutoConfig: {first_line(error)}") from error


def _refuse_adapter(source: str, folder: Path) -> None:
    if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists():
        raise ModelRejected(
            f"--model {source}: this is a LoRA adapter; name it in --adapters, and its base model "
            "in --model"
        )


def _refuse_unknown(source: str, folder: Path) -> None:
    """Raise ModelRejected if transformers doesn't know the type of the model in `folder`."""
    try:
        fields = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return
    model_type = fields.get("model_type") if isinstance(fields, dict) else None
    if not isinstance(model_type, str) or model_type in CONFIG_MAPPING:
        return
    if "auto_map" in fields:
        raise _needs_code(source, model_type)
    if any(name in fields for name in _MEDIA_PARTS):
        raise _multimodal(source, model_type)
    raise ModelRejected(
        f"--model {source}: transformers {transformers.__version__} doesn't know its model_type "
        f"{model_type!r}; upgrade transformers, or {OTHER_ENGINE}"
    )


def _check_kind(source: str, config: Any) -> None:
    """Raise ModelRejected unless the model is a decoder that generates text.

    A multimodal model is also accepted if its decoder can be loaded without the other parts.
    """
    model_type = config.model_type
    known = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
    if not known and "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
        raise _needs_code(source, model_type)
    if config.is_encoder_decoder:
        raise ModelRejected(
            f"--model {source}: {model_type} has an encoder and a decoder; Lorikeet serves models "
            "of a decoder alone"
        )
    has_parts = config.get_text_config() is not config
    if not known and not (has_parts and _answers_media(config)):
        raise ModelRejected(
            f"--model {source}: {model_type} isn't a causal language model of transformers "
            f"{transformers.__version__}; use another model"
        )
    has_media = any(getattr(config, name, None) is not None for name in _MEDIA_PARTS)
    is_multimodal = has_parts or has_media
    if is_multimodal and not has_text_class(config) and conditional_class(config) is None:
        raise _multimodal(source, model_type)


def _answers_media(config: Any) -> bool:
    """Return whether the model's prompts may contain images, video or sound."""
    mappings = (MODEL_FOR_MULTIMODAL_LM_MAPPING, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING)
    return any(type(config) in mapping for mapping in mappings)


def _check_layers(source: str, config: Any) -> None:
    kinds = set(getattr(config.get_text_config(), "layer_types", None) or ())
    if others := sorted(kinds - _SERVED_LAYERS):
        raise ModelRejected(
            f"--model {source}: layers of {config.model_type} use {', '.join(others)}, which the "
            f"native engine can't compute; {OTHER_ENGINE}"
        )


def _multimodal(source: str, model_type: str) -> ModelRejected:
    return ModelRejected(
        f"--model {source}: multimodal models aren't served by the native engine, and {model_type} "
        f"also takes images, video or sound; serve a model for text alone, or {OTHER_ENGINE}"
    )


def _needs_code(source: str, model_type: str) -> ModelRejected:
    return ModelRejected(
        f"--model {source}: {model_type} needs Python code from the model's repository, which "
        f"Lorikeet never runs; use another model, or {OTHER_ENGINE} if vLLM knows it"
    )
