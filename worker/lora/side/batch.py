"""Applies the side weights of a batch's adapters to the base's outputs.

Side weights are an adapter's changes besides its low-rank terms.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from shared.protocol.ids import AdapterVersion
from worker.lora.side.resident import SideStore


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
        """Apply the side weights to outputs of linears.

        Args:
            names: the linears, in the order of their columns in `y`.
            sizes: the linears' output widths.
            x: `[T, in]`, the linears' input.
            y: `[T, sum of sizes]`, the linears' outputs, changed in place.
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
        """Apply the side weights to the output of the module `name`, which isn't a linear.

        Args:
            name: the module.
            x: `[B, L, ...]`, the module's input.
            y: `[B, L, ...]`, the module's output, changed in place.
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
    """Build the side batch for `tokens`.

    Return None if no adapter in `tokens` has side weights.
    """
    return SideBatch(store, tokens) if any(version in store for version in tokens) else None
