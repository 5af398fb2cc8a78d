"""Reads the weights of a checkpoint whose module names differ from the served model's."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import EllipsisType
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from shared.errors import ModelRejected, first_line
from worker.lora.base.dialect import Dialect
from worker.lora.checkpoint.pickled_weights import unpickled
from worker.model.loading.folder import weight_files
from worker.model.loading.refusals import some_of

Stored = Mapping[str, Any]
"""Tensors of a checkpoint by name: torch tensors or slices of safetensors. Indexing reads rows."""


class Rows:
    """Some rows of a stored tensor, read when transformers indexes this object."""

    def __init__(self, tensor: Any, start: int, stop: int) -> None:
        """Describe the rows from `start` up to `stop` of `tensor`."""
        self._tensor, self._start, self._stop = tensor, start, stop

    def __getitem__(self, _: EllipsisType) -> Tensor:
        """Read and return the rows."""
        rows: Tensor = self._tensor[self._start : self._stop]
        return rows


def served_weights(
    source: str, folder: Path, dialect: Dialect, shapes: Mapping[str, Sequence[int]]
) -> dict[str, Rows]:
    """Return the weights in `folder` by their names in the served model.

    `shapes` has the expected shape of each weight.

    Raises:
        ModelRejected: the files can't be read, or a tensor is missing, unknown, in two files, or
            has another shape.
    """
    try:
        return translated(dialect, _stored(folder), shapes)
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelRejected(
            f"--model {source}: its weights can't be read: {first_line(error)}"
        ) from error


def translated(
    dialect: Dialect, stored: Stored, shapes: Mapping[str, Sequence[int]]
) -> dict[str, Rows]:
    """Return the stored tensors, cut by rows, under the names in `shapes`.

    Raises:
        ValueError: a tensor is missing, unknown, or has another shape. The message names it.
    """
    found: dict[str, Rows] = {}
    for name in (name for name in stored if name not in dialect.ignored):
        module, _, part = name.rpartition(".")
        served = [f"{each}.{part}" for each in dialect.served(module)]
        if not served or not shapes.keys() >= {*served}:
            raise ValueError(f"the tensor {name} belongs to no module of the model")
        rows = [shapes[each][0] for each in served]
        expected = [sum(rows), *shapes[served[0]][1:]]
        if (shape := _shape(stored[name])) != expected:
            raise ValueError(f"the tensor {name} has the shape {shape}, expected {expected}")
        start = 0
        for each, number in zip(served, rows, strict=True):
            found[each] = Rows(stored[name], start, start := start + number)
    if missing := sorted(shapes.keys() - found.keys()):
        lacking = sorted({dialect.stored(name.rpartition(".")[0]) or name for name in missing})
        raise ValueError(f"the files lack {some_of(lacking)}; download the model again")
    return found


def _stored(folder: Path) -> Stored:
    found: dict[str, Any] = {}
    for path in weight_files(folder):
        for name, tensor in _tensors(path):
            if name in found:
                raise ValueError(f"the tensor {name} is in two files, the second is {path.name}")
            found[name] = tensor
    return found


def _tensors(path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix == ".safetensors":
        file: Any = safe_open(path, framework="pt", device="cpu")
        yield from ((name, file.get_slice(name)) for name in file.keys())  # noqa: SIM118
    else:
        yield from unpickled(path).items()


def _shape(tensor: Any) -> list[int]:
    return list(tensor.shape if isinstance(tensor, Tensor) else tensor.get_shape())
