"""The side weights of resident adapters, on the device."""

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from shared.protocol.ids import AdapterVersion
from worker.lora.side.weights import SideWeights

Change = Callable[[Tensor, Tensor], Tensor]
"""From a module's input and output for an adapter's tokens to the output that it wants."""
Kind = Literal["scales", "shifts"]
Versions = tuple[AdapterVersion, ...]

_KEPT_TABLES = 2
"""Batches whose tables are kept: that of a step's tokens, and that of the rows for the head."""


@dataclass(frozen=True, slots=True, eq=False)
class ResidentSide:
    """One adapter's side weights."""

    weights: SideWeights
    changes: Mapping[str, Change]
    """Of the outputs of modules that aren't linears, by name."""

    @property
    def has_vectors(self) -> bool:
        """Whether outputs of linears are scaled or shifted."""
        return bool(self.weights.scales or self.weights.shifts)


class SideStore:
    """Whose side weights are resident."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._resident: dict[AdapterVersion, ResidentSide] = {}
        self._hooks: _Hooks | None = None
        self._tables: dict[Versions, dict[tuple[Kind, tuple[str, ...]], Tensor | None]] = {}

    def attach(self, model: nn.Module, hook_of: Callable[[str], Callable[..., None]]) -> None:
        """Let adapters change outputs of `model`: `hook_of` gives the forward hook of a module."""
        self._hooks = _Hooks(model, hook_of)

    def __contains__(self, version: object) -> bool:
        return version in self._resident

    def __getitem__(self, version: AdapterVersion) -> ResidentSide:
        return self._resident[version]

    def add(self, version: AdapterVersion, weights: SideWeights) -> None:
        """Let batches find an adapter's side weights, which are on the device."""
        assert self._hooks is not None or not weights.parameters
        changes: dict[str, Change] = {n: term.change for n, term in weights.embeddings.items()}
        if self._hooks is not None:
            changes |= {n: self._hooks.replaced(n, p) for n, p in weights.parameters.items()}
            self._hooks.add(changes)
        self._resident[version] = ResidentSide(weights, changes)

    def remove(self, version: AdapterVersion) -> None:
        """Give an adapter's side weights up, if it has any."""
        side = self._resident.pop(version, None)
        self._tables.clear()
        if side is not None and self._hooks is not None:
            self._hooks.remove(side.changes)

    def table(
        self, kind: Kind, names: tuple[str, ...], sizes: Sequence[int], versions: Versions
    ) -> Tensor | None:
        """The vectors of `versions`, one a row, for the linears `names` side by side.

        `sizes` are the linears' widths. What an adapter doesn't have changes nothing; None if
        none of them has anything. Kept until the versions of a batch change.
        """
        tables = self._tables.get(versions)
        if tables is None:
            if len(self._tables) == _KEPT_TABLES:
                del self._tables[next(iter(self._tables))]
            tables = self._tables[versions] = {}
        key = kind, names
        if key not in tables:
            tables[key] = self._stacked(kind, names, sizes, versions)
        return tables[key]

    def _stacked(
        self, kind: Kind, names: tuple[str, ...], sizes: Sequence[int], versions: Versions
    ) -> Tensor | None:
        rows = [getattr(self._resident[version].weights, kind) for version in versions]
        found = next((row[name] for row in rows for name in names if name in row), None)
        if found is None:
            return None
        neutral = 1.0 if kind == "scales" else 0.0
        blanks = [found.new_full((size,), neutral) for size in sizes]
        return torch.cat(
            [
                torch.stack([row.get(name, blank) for row in rows])
                for name, blank in zip(names, blanks, strict=True)
            ],
            dim=1,
        )


class _Hooks:
    """Forward hooks on modules of the base, there only while an adapter needs them."""

    def __init__(self, model: nn.Module, hook_of: Callable[[str], Callable[..., None]]) -> None:
        self._model = model
        self._hook_of = hook_of
        self._users: Counter[str] = Counter()
        self._handles: dict[str, Any] = {}

    def add(self, names: Mapping[str, Change]) -> None:
        """Let an adapter change the outputs of the modules `names`."""
        for name in names:
            if not self._users[name]:
                module = self._model.get_submodule(name)
                self._handles[name] = module.register_forward_hook(self._hook_of(name))
            self._users[name] += 1

    def remove(self, names: Mapping[str, Change]) -> None:
        """Take that back."""
        for name in names:
            self._users[name] -= 1
            if not self._users[name]:
                self._handles.pop(name).remove()

    def replaced(self, name: str, parameters: Mapping[str, Tensor]) -> Change:
        """What the module gives with other parameters in the place of its own."""
        module = copy.copy(self._model.get_submodule(name))
        module._parameters = {
            **module._parameters,
            **{n: nn.Parameter(tensor, requires_grad=False) for n, tensor in parameters.items()},
        }
        forward: Callable[[Tensor], Tensor] = module.forward
        return lambda x, _: forward(x)
