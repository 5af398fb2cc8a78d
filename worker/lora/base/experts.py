"""Describes the parameters of mixtures of experts.

The weights of all experts of a layer are stacked in one parameter. The router, which chooses the
experts of a token, multiplies by a parameter without calling a linear.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from worker.upstream.linears import Conv1D


@dataclass(frozen=True, slots=True)
class MixtureWeight:
    """A parameter that has one weight for each expert of a layer, or the weight of a router."""

    module: str
    """Name of the module that has the parameter."""
    parameter: str
    """Name of the parameter in its module, such as `gate_up_proj`."""
    num_experts: int
    """Number of weights in the parameter. 1 for a router."""
    in_features: int
    out_features: int
    is_transposed: bool = False
    """Whether each expert's weight is stored as `[in, out]`."""
    is_concatenated: bool = True
    """Whether all rows of `gate` precede those of `up`. Otherwise, they alternate."""

    @property
    def name(self) -> str:
        """Name of the parameter in the model."""
        return f"{self.module}.{self.parameter}"

    @property
    def linears(self) -> list[str]:
        """Names under which adapters' weights for each expert are stored, in order."""
        return [f"{self.name}.{expert}" for expert in range(self.num_experts)]

    def renamed(self, name_of: Callable[[str], str]) -> "MixtureWeight":
        """Return the same parameter in a module with another name."""
        return replace(self, module=name_of(self.module))


UP, GATE_UP, DOWN = "up_proj", "gate_up_proj", "down_proj"
"""Names of the parameters of experts that transformers' functions for experts read."""
ROUTER = "weight"
"""Name of a router's parameter."""


def _is_experts(module: Any) -> bool:
    """Return whether transformers computes the module by a registered function for experts.

    A subclass with a `forward` of its own, as in Ergo, may pass other rows than tokens.
    """
    has_flags = all(hasattr(module, name) for name in ("is_transposed", "has_gate", "has_bias"))
    is_dispatched = hasattr(type(module).forward, "__wrapped__")
    return (
        has_flags
        and is_dispatched
        and hasattr(module, "_apply_gate")
        and _first(module) is not None
    )


def mixture_weights(model: nn.Module) -> dict[str, MixtureWeight]:
    """Return the weights of all experts and routers by name, in the order of the model."""
    return {
        weight.name: weight
        for name, module in model.named_modules()
        for weight in _weights(name, module)
    }


def _is_router(module: Any) -> bool:
    """Return whether the module may be a router: it has a matrix, and isn't a known module."""
    weight = module._parameters.get(ROUTER)
    is_known = isinstance(module, nn.Linear | nn.Embedding | Conv1D)
    return weight is not None and weight.dim() == 2 and not is_known


def _weights(name: str, module: Any) -> list[MixtureWeight]:
    if _is_router(module):
        out_features, in_features = module.weight.shape
        return [MixtureWeight(name, ROUTER, 1, in_features, out_features)]
    if not _is_experts(module):
        return []
    found = []
    for parameter in (GATE_UP if module.has_gate else UP, DOWN):
        num_experts, *widths = getattr(module, parameter).shape
        in_features, out_features = widths if module.is_transposed else reversed(widths)
        weight = MixtureWeight(name, parameter, num_experts, in_features, out_features)
        flags = {name: getattr(module, name) for name in ("is_transposed", "is_concatenated")}
        found.append(replace(weight, **flags))
    return found


def _first(module: Any) -> Any:
    """Return the first weight of a module of experts, or None if it isn't one."""
    weight = getattr(module, GATE_UP if module.has_gate else UP, None)
    is_stacked = isinstance(weight, nn.Parameter) and weight.dim() == 3
    down = getattr(module, DOWN, None)
    return weight if is_stacked and isinstance(down, nn.Parameter) else None
