"""Finds the decoder of a transformers model by its structure."""

from typing import Any

from torch import nn
from transformers import PreTrainedModel


def decoder_name(model: nn.Module) -> str:
    """Return the name of the decoder: the innermost model that contains the input embedding.

    In a multimodal model, the decoder is the part that reads text. The name is empty if the decoder
    is `model` itself.
    """
    embedding = model.get_input_embeddings()  # type: ignore[operator]  # every PreTrainedModel has it
    models = [
        name
        for name, part in model.named_modules()
        if isinstance(part, PreTrainedModel) and any(each is embedding for each in part.modules())
    ]
    return models[-1] if models else ""


def name_of(model: nn.Module, module: Any) -> str | None:
    """Return the name of `module` in `model`, or None if `model` doesn't contain it."""
    return next((name for name, each in model.named_modules() if each is module), None)


def dropped_modules(model: nn.Module) -> frozenset[str]:
    """Return the names of the model's submodules that are None, such as dropped towers."""
    return frozenset(
        f"{name}.{child}" if name else child
        for name, part in model.named_modules()
        for child, module in part._modules.items()
        if module is None
    )
