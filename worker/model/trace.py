"""Records the calls of a model's modules during a forward pass."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


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
    """Record calls of the modules `names` while the context is open.

    The context yields a list. Each call is appended to the list when the call returns.
    """
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
