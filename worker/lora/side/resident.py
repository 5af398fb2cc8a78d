"""Keeps the side weights of the resident adapters on the device, and applies them to batches."""

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
"""Function that returns an adapter's output for a module.

The arguments are the module's input and the base model's output for this input. The input and both
outputs have rows only for the adapter's tokens.
"""
Kind = Literal["scales", "shifts"]
Versions = tuple[AdapterVersion, ...]

_CACHED_TABLES = 2
"""Maximum number of batches whose tables are cached.

Each step needs two batches: one has the step's tokens, the other has the output head's rows."""


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
        """Add an adapter's side weights. The weights must be on the device."""
        assert self._hooks is not None or not weights.parameters
        changes: dict[str, OutputChange] = {
            name: term.change for name, term in weights.embeddings.items()
        }
        if self._hooks is not None:
            changes |= {n: self._hooks.replaced(n, p) for n, p in weights.parameters.items()}
            self._hooks.add(changes)
        self._resident[version] = ResidentSide(weights, changes)

    def remove(self, version: AdapterVersion) -> None:
        """Remove an adapter's side weights, if the adapter has any."""
        side = self._resident.pop(version, None)
        self._tables.clear()
        if side is not None and self._hooks is not None:
            self._hooks.remove(side.changes)

    def table(
        self, kind: Kind, names: tuple[str, ...], sizes: Sequence[int], versions: Versions
    ) -> Tensor | None:
        """Return the scale or shift vectors for sibling linears as a table. Each version has a row.

        Where a version has no vector for a linear, its row has the value 1 (scales) or 0 (shifts).
        The tables of the latest two batches are cached.

        Returns:
            `[len(versions), sum of sizes]`, or None if no version has such a vector. Columns are in
            the order of `names`, and `sizes` are the linears' output widths.
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
        """Add a user of the hooks on the modules in `names`. Register missing hooks."""
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
        """Return a function that runs the module `name` with other parameters.

        The tensors in `parameters` replace the module's parameters of the same names.
        """
        module = copy.copy(self._model.get_submodule(name))
        module._parameters = {
            **module._parameters,
            **{n: nn.Parameter(tensor, requires_grad=False) for n, tensor in parameters.items()},
        }
        forward: Callable[[Tensor], Tensor] = module.forward
        return lambda x, _: forward(x)


class SideBatch:
    """Tokens of a batch that use adapters with side weights.

    Valid until the store removes one of these adapters.
    """

    def __init__(self, store: SideStore, tokens: Mapping[AdapterVersion, Sequence[int]]) -> None:
        """Prepare a batch. `tokens` holds the indices of each adapter's tokens in the batch."""
        self._store = store
        self._tokens = {
            version: torch.tensor(numbers, dtype=torch.int64, device=store.device)
            for version, numbers in tokens.items()
            if version in store
        }
        self._with_terms = [v for v in self._tokens if store[v].weights.linears]
        self._versions = tuple(v for v in self._tokens if store[v].has_vectors)
        if self._versions:
            parts = [self._tokens[version] for version in self._versions]
            lengths = torch.tensor([len(part) for part in parts], device=store.device)
            self._rows = torch.cat(parts)
            self._slots = torch.arange(len(parts), device=store.device).repeat_interleave(lengths)

    def changes(self, names: tuple[str, ...]) -> bool:
        """Return whether an adapter of the batch changes the output of any linear in `names`."""
        weights = [self._store[version].weights for version in self._tokens]
        kinds = [kind for w in weights for kind in (w.scales, w.shifts, w.linears)]
        return any(name in kind for kind in kinds for name in names)

    def change_linears_(
        self, names: tuple[str, ...], sizes: Sequence[int], x: Tensor, y: Tensor
    ) -> None:
        """Change `y` `[T, sum of sizes]` in place: the linears' output for the input `x` `[T, in]`.

        `names` and `sizes` are the linears and their widths, in the order of the columns.
        """
        if self._versions:
            self._scale_and_shift_(names, sizes, y)
        for version in self._with_terms:
            terms, tokens = self._store[version].weights.linears, self._tokens[version]
            for name, columns in zip(names, torch.split(y, list(sizes), dim=1), strict=True):
                if name in terms:
                    rows = x.index_select(0, tokens), columns.index_select(0, tokens)
                    columns.index_copy_(0, tokens, terms[name].change(*rows))

    def change_output_(self, name: str, x: Tensor, y: Tensor) -> None:
        """Change `y` `[B, L, ...]` in place: the output of `name` for the input `x` `[B, L, ...]`.

        The module `name` isn't a linear.
        """
        x, y = x.flatten(0, 1), y.view(-1, *y.shape[2:])
        for version, tokens in self._tokens.items():
            change = self._store[version].changes.get(name)
            if change is not None:
                part = change(x.index_select(0, tokens), y.index_select(0, tokens))
                y.index_copy_(0, tokens, part)

    def _scale_and_shift_(self, names: tuple[str, ...], sizes: Sequence[int], y: Tensor) -> None:
        scale = self._store.table("scales", names, sizes, self._versions)
        shift = self._store.table("shifts", names, sizes, self._versions)
        if scale is None and shift is None:
            return
        rows = y.index_select(0, self._rows)
        if scale is not None:
            rows = rows * scale.index_select(0, self._slots)
        if shift is not None:
            rows = rows + shift.index_select(0, self._slots)
        y.index_copy_(0, self._rows, rows.to(y.dtype))


def side_batch(
    store: SideStore, tokens: Mapping[AdapterVersion, Sequence[int]]
) -> SideBatch | None:
    """Build the side batch for `tokens`, or return None if no adapter has side weights."""
    return SideBatch(store, tokens) if any(version in store for version in tokens) else None
