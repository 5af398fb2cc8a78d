"""Finds linears of a model that can be computed by one matrix product."""

from collections.abc import Sequence

from torch import nn

from worker.lora.base.linear import can_join
from worker.model.trace import Call


def sibling_groups(model: nn.Module, calls: Sequence[Call]) -> list[list[str]]:
    """Group the linears in `calls` into siblings and return the linears' names by group.

    Siblings are linears that can be joined, have the same parent module, read the same tensor and
    are called one after another. A linear without siblings forms its own group. `calls` must be in
    the order of the forward pass.
    """
    groups: list[list[str]] = []
    last: Call | None = None
    for call in calls:
        if last is not None and _are_siblings(model, last, call):
            groups[-1].append(call.name)
        else:
            groups.append([call.name])
        last = call
    return groups


def _are_siblings(model: nn.Module, first: Call, second: Call) -> bool:
    return (
        first.input is second.input
        and first.name.rpartition(".")[0] == second.name.rpartition(".")[0]
        and all(can_join(model.get_submodule(call.name)) for call in (first, second))
    )
