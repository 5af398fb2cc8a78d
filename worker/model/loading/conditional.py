"""Loads multimodal models for text only, without the parts for images, video and sound.

Such a model consists of a decoder, an output head and towers. A tower is a part that reads images,
video or sound. Its outputs replace embeddings of the prompt, so text needs no towers. The names of
transformers' classes for such models end with `ForConditionalGeneration`.
"""

from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from worker.lora.base.decoder import decoder_name, name_of
from worker.upstream.model_classes import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
)


def conditional_class(config: Any) -> type[PreTrainedModel] | None:
    """Return a class that loads a multimodal model without its towers.

    Returns None for other models. Also returns None if transformers has a class for the decoder
    alone, unless `config` names the multimodal class: adapters were trained on the named class.
    """
    if config.get_text_config() is config or type(config) not in MODEL_FOR_MULTIMODAL_LM_MAPPING:
        return None
    model_class: type[PreTrainedModel] = MODEL_FOR_MULTIMODAL_LM_MAPPING[type(config)]
    is_named = model_class.__name__ in (config.architectures or ())
    return _without_towers(model_class) if is_named or not has_text_class(config) else None


def model_of_config(config: Any, dtype: torch.dtype) -> PreTrainedModel:
    """Return a model with random weights and only the modules that are served."""
    model_class = conditional_class(config)
    model: PreTrainedModel = (
        AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
        if model_class is None
        else model_class._from_config(config, dtype=dtype)
    )
    return model


def has_text_class(config: Any) -> bool:
    """Return whether transformers has a class that loads only the decoder of a multimodal model."""
    text = config.get_text_config()
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    return text is not config and getattr(model_class, "config_class", None) is type(text)


def _without_towers(model_class: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """Return a subclass of `model_class` with the same name, whose models have no towers.

    transformers builds the models on the meta device. Therefore the towers never take memory, and
    their weights aren't read.
    """

    def build(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        model_class.__init__(self, config, *args, **kwargs)
        drop_towers(self)

    fields = {"__init__": build, "__module__": model_class.__module__}
    return type(model_class.__name__, (model_class,), fields)


def drop_towers(model: PreTrainedModel) -> None:
    """Set all modules with weights, except for the decoder and the output head, to None."""
    kept = [decoder_name(model), name_of(model, model.get_output_embeddings()) or ""]
    parents = [name for name, _ in model.named_modules() if any(_is_inside(k, name) for k in kept)]
    towers = [
        child
        for parent in parents
        for child in _children_with_weights(model, parent)
        if child not in kept and child not in parents
    ]
    for tower in towers:
        parent, _, name = tower.rpartition(".")
        setattr(model.get_submodule(parent), name, None)
    tied = model.all_tied_weights_keys
    for weight in [key for key in tied if any(_is_inside(key, tower) for tower in towers)]:
        del tied[weight]


def _children_with_weights(model: nn.Module, parent: str) -> list[str]:
    children = model.get_submodule(parent).named_children()
    names = [name for name, child in children if next(child.parameters(), None) is not None]
    return [f"{parent}.{name}" if parent else name for name in names]


def _is_inside(name: str, module: str) -> bool:
    """Return whether the module `name` is inside `module`, where "" stands for the whole model."""
    return bool(name) and name.startswith(f"{module}." if module else "")
