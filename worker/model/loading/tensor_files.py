"""Reads single tensors of safetensors files, and weights that are computed on first use."""

import json
import math
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import Any, Protocol

import torch
from safetensors import safe_open
from torch import Tensor

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_ITEM_BYTES = {"U8": 1, "I8": 1, "BF16": 2, "F16": 2, "F32": 4}
_PIECE = 1 << 18
"""Maximum number of a weight's values that are computed at a time, to limit memory."""


@dataclass(frozen=True, slots=True)
class Place:
    """Dtype and device that weights get when they are computed."""

    dtype: torch.dtype
    device: torch.device


class Weight(Protocol):
    """A weight that is read when transformers indexes it, like a tensor of a safetensors file."""

    def __getitem__(self, index: EllipsisType) -> Tensor:
        """Return the weight."""


class TensorFiles:
    """All tensors of a model's safetensors files, by name."""

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, Any] = {}
        for name in _file_names(folder):
            file: Any = safe_open(folder / name, framework="pt", device="cpu")
            self._files.update(dict.fromkeys(file.keys(), file))

    @property
    def names(self) -> list[str]:
        """Names of all tensors."""
        return list(self._files)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def read(self, name: str) -> Tensor:
        """Return a tensor on the CPU."""
        tensor: Tensor = self._files[name].get_tensor(name)
        return tensor

    def shape(self, name: str) -> list[int]:
        """Return a tensor's shape. Raises ValueError if no file holds the tensor."""
        if name not in self._files:
            raise ValueError(f"{name} is missing")
        shape: list[int] = self._files[name].get_slice(name).get_shape()
        return shape

    def dtype(self, name: str) -> str:
        """Return a tensor's dtype as safetensors writes it, such as `F8_E4M3`."""
        dtype: str = self._files[name].get_slice(name).get_dtype()
        return dtype

    def num_bytes(self, name: str) -> int:
        """Return the size of a tensor in bytes; 0 for an unknown dtype.

        The bytes of weights that were quantised for FSDP can be packed in a wider dtype.
        """
        return math.prod(self.shape(name)) * _ITEM_BYTES.get(self.dtype(name), 0)

    def plain(self, others: Container[str]) -> dict[str, Weight]:
        """Return the tensors whose names aren't in `others`, as weights that aren't quantised."""
        return {name: _Plain(self, name) for name in self.names if name not in others}


class _Plain:
    """A weight that isn't quantised."""

    def __init__(self, files: TensorFiles, name: str) -> None:
        self._files, self._name = files, name

    def __getitem__(self, _: EllipsisType) -> Tensor:
        return self._files.read(self._name)


class Piecewise:
    """A weight that is computed a few rows at a time, to limit the memory for wider values."""

    def __init__(
        self,
        shape: Sequence[int],
        open_rows: Callable[[], Callable[[slice], Tensor]],
        place: Place,
        *,
        view: Sequence[int] | None = None,
    ) -> None:
        """Describe a weight of `shape` that is computed on first use and returned in shape `view`.

        `open_rows` reads the stored tensors, and returns a function. From these tensors, the
        function computes a slice of the weight's rows. A slice of a matrix starts at a multiple of
        8. The weight gets the dtype and device of `place`.
        """
        self._shape, self._view = tuple(shape), tuple(view or shape)
        self._open_rows = open_rows
        self._place = place

    def __getitem__(self, _: EllipsisType) -> Tensor:
        rows_of = self._open_rows()
        weight = torch.empty(self._shape, dtype=self._place.dtype, device=self._place.device)
        multiple = 8 if len(self._shape) == 2 else 1
        step = max(1, _PIECE // math.prod(self._shape[1:]) // multiple) * multiple
        for start in range(0, len(weight), step):
            rows = slice(start, min(start + step, len(weight)))
            weight[rows] = rows_of(rows)
        return weight.view(self._view)


def _file_names(folder: Path) -> list[str]:
    index = folder / INDEX
    if not index.exists():
        return [SINGLE]
    names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    for name in names:
        if Path(name).name != name:
            raise ValueError(f"{INDEX} names {name!r}, which isn't a file of the model's folder")
    return names
