"""Records the calls of a model's modules. Finds the linears that one matrix product can compute."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from worker.lora.base.linear import can_join


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a module."""

    name: str
    """The module's name in `named_modules`."""
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any

    @property
    def input(self) -> Tensor:
        """The call's first argument."""
        first: Tensor = self.args[0] if self.args else next(iter(self.kwargs.values()))
        return first


@contextmanager
def record_calls(model: nn.Module, names: Iterable[str]) -> Iterator[list[Call]]:
    """Yield a list. Each call of a module in `names` is added to it when the call returns."""
    calls: list[Call] = []
    handles = [_record(calls, name, model.get_submodule(name)) for name in names]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _record(calls: list[Call], name: str, module: nn.Module) -> Any:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        calls.append(Call(name, args, kwargs, output))

    return module.register_forward_hook(hook, with_kwargs=True)


def sibling_groups(model: nn.Module, calls: Sequence[Call]) -> list[list[str]]:
    """Group the linears in `calls` into siblings and return the linears' names by group.

    Siblings are linears that can be joined, have the same parent module, read the same tensor and
    are called one after another. A linear without siblings, or with several calls, forms its own
    group. `calls` must be in the order of the forward pass.
    """
    counts = Counter(call.name for call in calls)
    groups = [[name] for name, count in counts.items() if count > 1]
    last: Call | None = None
    for call in calls:
        if counts[call.name] > 1:
            last = None
            continue
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
