"""The modules of a base model, for a process that doesn't load the weights."""

from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.pytorch_utils import Conv1D

from shared.errors import ModelRejected, first_line
from worker.lora.base.base_weight import BaseWeight
from worker.lora.base.decoder import decoder_name
from worker.lora.base.modules import BaseModules, ModuleShape, is_expert, module_shape
from worker.model.loading.images import takes_images

_NOT_SERVED = "which --engine vllm can't adapt"


def skeleton_modules(source: str, config: Any) -> BaseModules:
    """Return the modules that adapters of a vLLM worker may target: the decoder's linears.

    If the model reads images, all its other parts are left out. `source` is the value of --model,
    for error messages.

    Raises:
        ModelRejected: transformers can't build the model.
    """
    auto_class = AutoModelForImageTextToText if takes_images(config) else AutoModelForCausalLM
    try:
        with torch.device("meta"):
            model = auto_class.from_config(config, trust_remote_code=False)
    except Exception as error:  # transformers raises many error types
        raise ModelRejected(f"--model {source}: {first_line(error)}") from error
    linears: dict[str, ModuleShape] = {}
    others: dict[str, str] = {}
    head = model.get_output_embeddings()
    decoder = decoder_name(model)
    prefix = f"{decoder}." if takes_images(config) else ""
    modules = {name: m for name, m in model.named_modules() if name.startswith(prefix)}
    for name, module in modules.items():
        if _is_linear(module, head) and not is_expert(name):
            linears[name] = module_shape(module)
        elif name:
            others[name] = f"{type(module).__name__}, {_NOT_SERVED}"
    return BaseModules(
        model_type=str(config.model_type),
        linears=linears,
        conv1d=frozenset(n for n in linears if isinstance(model.get_submodule(n), Conv1D)),
        others=others,
        all_linear=frozenset(n for n, m in modules.items() if _is_linear(m, head)),
        decoder=decoder,
        reads_images=takes_images(config),
        weights={name: _shapes_of(model.get_submodule(name)) for name in linears},
    )


def _shapes_of(linear: Any) -> BaseWeight:
    """Return the properties of the linear's weight. The tensors have shapes but no values."""
    bias = None if linear.bias is None else linear.bias.data
    width = module_shape(linear).out_features
    return BaseWeight(torch.empty(width, device="meta"), bias, _not_loaded)


def _not_loaded(_: torch.Tensor) -> torch.Tensor:
    raise NotImplementedError("this process doesn't load the base model's weights")


def _is_linear(module: nn.Module, head: nn.Module | None) -> bool:
    return isinstance(module, nn.Linear | Conv1D) and module is not head
