"""What an adapter may target in a base model, matched as PEFT matches."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import nn
from transformers.pytorch_utils import Conv1D

from shared.errors import AdapterRejected

ALL_LINEAR = "all-linear"


@dataclass(frozen=True, slots=True)
class ModuleShape:
    """What goes into a linear, and what comes out."""

    in_features: int
    out_features: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModules:
    """The modules of one base model by name, as `named_modules` gives them."""

    model_type: str
    linears: Mapping[str, ModuleShape]
    """What adapters may target: the linears inside the decoder, in the model's order."""
    conv1d: frozenset[str]
    """Those of `linears` that are GPT-2's Conv1D, which stores its weight as `[in, out]`."""
    others: Mapping[str, str]
    """Every other module and what it is, for error messages."""
    all_linear: frozenset[str]
    """What PEFT's `all-linear` stands for."""

    def targets(self, config: Any) -> list[str]:
        """The modules that a `peft.LoraConfig` targets, in the model's order.

        Raises:
            AdapterRejected: it targets nothing, or something else than `linears`.
        """
        config = self._with_default_targets(config)
        for name, kind in self.others.items():
            if check_target_module_exists(config, name):
                raise AdapterRejected(
                    f"target_modules matches {name} ({kind}); "
                    "only linears inside the decoder are served"
                )
        found = [name for name in self.linears if check_target_module_exists(config, name)]
        if not found:
            raise AdapterRejected("target_modules matches no module of the base model")
        return found

    def _with_default_targets(self, config: Any) -> Any:
        targets = config.target_modules
        if targets is None:
            targets = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(self.model_type)
            if targets is None:
                raise AdapterRejected(
                    f"target_modules isn't set, and PEFT has no default for {self.model_type}"
                )
        elif isinstance(targets, str) and targets.lower() == ALL_LINEAR:
            targets = self.all_linear
        config = copy.copy(config)
        config.target_modules = targets
        return config


def base_modules(model: nn.Module) -> BaseModules:
    """The modules of a transformers model, before `serve_linears` has changed it."""
    head = model.get_output_embeddings()  # type: ignore[operator]  # every PreTrainedModel has it
    linears: dict[str, ModuleShape] = {}
    others: dict[str, str] = {}
    all_linear = set()
    for name, module in model.named_modules():
        is_linear = isinstance(module, nn.Linear | Conv1D) and module is not head
        if is_linear:
            all_linear.add(name)
        if is_linear and not _is_expert(name):
            linears[name] = _shape(module)
        elif name:
            others[name] = type(module).__name__
    return BaseModules(
        model_type=str(getattr(model.config, "model_type", "")),
        linears=linears,
        conv1d=frozenset(n for n in linears if isinstance(model.get_submodule(n), Conv1D)),
        others=others,
        all_linear=frozenset(all_linear),
    )


def _is_expert(name: str) -> bool:
    """Whether a module is one of several inside its layer.

    Those are experts, which see some of the tokens in an order of their own, so that rows of
    their input can't be told apart by adapter.
    """
    return sum(part.isdigit() for part in name.split(".")) > 1


def _shape(linear: Any) -> ModuleShape:
    if isinstance(linear, Conv1D):
        return ModuleShape(linear.nx, linear.nf)
    return ModuleShape(linear.in_features, linear.out_features)
