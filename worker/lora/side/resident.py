"""Keeps the side weights of the resident adapters on the device."""

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from shared.protocol.ids import AdapterVersion
from worker.lora.side.weights import SideWeights

OutputChange = Callable[[Tensor, Tensor], Tensor]
"""Takes a module's input and the base's output, and returns the adapter's output.

The input and both outputs hold only the adapter's tokens.
"""
Kind = Literal["scales", "shifts"]
Versions = tuple[AdapterVersion, ...]

_CACHED_TABLES = 2
"""Maximum number of batches whose tables are cached.

A step has at most two batches: one of its tokens and one of the output head's rows.
"""


@dataclass(frozen=True, slots=True, eq=False)
class ResidentSide:
    """Side weights of one resident adapter."""

    weights: SideWeights
    changes: Mapping[str, OutputChange]
    """Changes to outputs of modules other than linears, by module name."""

    @property
    def has_vectors(self) -> bool:
        """Whether the adapter scales or shifts outputs of linears."""
        return bool(self.weights.scales or self.weights.shifts)


class SideStore:
    """Side weights of all resident adapters, by version."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._resident: dict[AdapterVersion, ResidentSide] = {}
        self._hooks: _Hooks | None = None
        self._tables: dict[Versions, dict[tuple[Kind, tuple[str, ...]], Tensor | None]] = {}

    def attach(self, model: nn.Module, hook_of: Callable[[str], Callable[..., None]]) -> None:
        """Let adapters change the outputs of modules in `model`.

        `hook_of` takes a module's name and returns the forward hook to register on that module.
        """
        self._hooks = _Hooks(model, hook_of)

    def __contains__(self, version: object) -> bool:
        return version in self._resident

    def __getitem__(self, version: AdapterVersion) -> ResidentSide:
        return self._resident[version]

    def add(self, version: AdapterVersion, weights: SideWeights) -> None:
        """Add an adapter's side weights, which must be on the device."""
        assert self._hooks is not None or not weights.parameters
        changes: dict[str, OutputChange] = {
            name: term.change for name, term in weights.embeddings.items()
        }
        if self._hooks is not None:
            changes |= {n: self._hooks.replaced(n, p) for n, p in weights.parameters.items()}
            self._hooks.add(changes)
        self._resident[version] = ResidentSide(weights, changes)

    def remove(self, version: AdapterVersion) -> None:
        """Remove an adapter's side weights, if it has any."""
        side = self._resident.pop(version, None)
        self._tables.clear()
        if side is not None and self._hooks is not None:
            self._hooks.remove(side.changes)

    def table(
        self, kind: Kind, names: tuple[str, ...], sizes: Sequence[int], versions: Versions
    ) -> Tensor | None:
        """Return the scale or shift vectors of sibling linears, with one row per version.

        Where a version has no vector for a linear, the row holds 1 (scales) or 0 (shifts). The
        tables of the last two batches are cached.

        Args:
            kind: whether to return scales or shifts.
            names: the linears, in the order of their columns.
            sizes: the linears' output widths.
            versions: the adapters, in the order of the rows.

        Returns:
            `[len(versions), sum of sizes]`, or None if no version has a vector for these linears.
        """
        tables = self._tables.get(versions)
        if tables is None:
            if len(self._tables) == _CACHED_TABLES:
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
        example = next((row[name] for row in rows for name in names if name in row), None)
        if example is None:
            return None
        neutral = 1.0 if kind == "scales" else 0.0
        blanks = [example.new_full((size,), neutral) for size in sizes]
        return torch.cat(
            [
                torch.stack([row.get(name, blank) for row in rows])
                for name, blank in zip(names, blanks, strict=True)
            ],
            dim=1,
        )


class _Hooks:
    """Forward hooks on modules of the base, registered only while an adapter needs them."""

    def __init__(self, model: nn.Module, hook_of: Callable[[str], Callable[..., None]]) -> None:
        self._model = model
        self._hook_of = hook_of
        self._num_users: Counter[str] = Counter()
        self._handles: dict[str, Any] = {}

    def add(self, names: Mapping[str, OutputChange]) -> None:
        """Add a user of the hooks on the modules `names`. Register the hooks that are missing."""
        for name in names:
            if not self._num_users[name]:
                module = self._model.get_submodule(name)
                self._handles[name] = module.register_forward_hook(self._hook_of(name))
            self._num_users[name] += 1

    def remove(self, names: Mapping[str, OutputChange]) -> None:
        """Undo one call of `add` with the same names. Remove the hooks that have no user left."""
        for name in names:
            self._num_users[name] -= 1
            if not self._num_users[name]:
                self._handles.pop(name).remove()

    def replaced(self, name: str, parameters: Mapping[str, Tensor]) -> OutputChange:
        """Return a function that runs the module `name` with `parameters`.

        `parameters` replace the module's own parameters of the same names.
        """
        module = copy.copy(self._model.get_submodule(name))
        module._parameters = {
            **module._parameters,
            **{n: nn.Parameter(tensor, requires_grad=False) for n, tensor in parameters.items()},
        }
        forward: Callable[[Tensor], Tensor] = module.forward
        return lambda x, _: forward(x)
