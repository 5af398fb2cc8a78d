"""The tensors of an adapter by what they are, checked to be numbers."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from shared.errors import AdapterRejected
from worker.lora.checkpoint.tensor_file import FileTensors, is_finite
from worker.lora.checkpoint.tensor_names import Part, TensorKey


class AdapterTensors:
    """What an adapter's file holds, each tensor in its own dtype, on the CPU."""

    def __init__(
        self, file: FileTensors, names: Mapping[TensorKey, str], *, are_checked: bool = False
    ) -> None:
        """Take those tensors of `file` that `names` names.

        `are_checked` says that all were cast before, so that they needn't be looked at.
        """
        self._file = file
        self._are_checked = are_checked
        self._names = dict(names)

    def check_finite(self) -> None:
        """Make sure that all are numbers.

        Raises:
            AdapterRejected: a tensor holds NaN or Inf.
        """
        if not self._are_checked:
            self._file.check_finite()

    def __getitem__(self, key: TensorKey) -> Tensor:
        return self._file[self._names[key]]

    @property
    def parts(self) -> set[Part]:
        """What there are tensors of."""
        return {key.part for key in self._names}

    def drop(self, key: TensorKey) -> None:
        """Forget a tensor."""
        del self._names[key]

    def find(self, *keys: TensorKey) -> TensorKey | None:
        """The first of `keys` that is there."""
        return next((key for key in keys if key in self._names), None)

    def cast(self, key: TensorKey, dtype: torch.dtype, scaling: float = 1.0) -> Tensor:
        """The tensor times `scaling`, rounded once.

        Raises:
            AdapterRejected: `dtype` can't hold it.
        """
        tensor = self[key]
        made = _cast(tensor, dtype, scaling)
        if made is not tensor and not self._are_numbers(made):
            raise AdapterRejected(f"tensor {self._names[key]} overflows {dtype} ({scaling=})")
        return made

    def cast_all(
        self, keys: Sequence[TensorKey], dtype: torch.dtype, scaling: float = 1.0
    ) -> tuple[Tensor, float]:
        """Tensors of one shape and dtype, cast like one; the first dimension tells them apart.

        Returns:
            They, and what is left to multiply them by: `scaling`, if that is exact, or 1.

        Raises:
            AdapterRejected: `dtype` can't hold one of them.
        """
        tensors = self._file.stacked([self._names[key] for key in keys])
        is_left = _is_exact(tensors, dtype, scaling)
        if is_left and (scaling == 1 or self._are_checked):
            return tensors, scaling
        made = _cast(tensors, dtype, scaling)
        if not self._are_numbers(made):
            for key in keys:
                self.cast(key, dtype, scaling)
        return (tensors, scaling) if is_left else (made, 1.0)

    def _are_numbers(self, made: Tensor) -> bool:
        return self._are_checked or is_finite(made)

    def refusal(self, key: TensorKey, why: str) -> AdapterRejected:
        """The error that names a tensor."""
        return AdapterRejected(f"tensor {self._names[key]} {why}")

    def others(self, keys: Iterable[TensorKey]) -> list[TensorKey]:
        """Every tensor but `keys`, sorted."""
        return sorted(self._names.keys() - set(keys))

    def facts(self, key: TensorKey, scaling: float) -> bytes:
        """What a digest covers of a tensor besides its bytes."""
        kind = self._file.infos[self._names[key]].kind
        return json.dumps([str(key), scaling.hex(), kind]).encode()

    def hash_into(self, sha: Any, *keys: TensorKey) -> None:
        """Let a digest cover all bytes of tensors, as they are in the file."""
        for key in keys:
            sha.update(self._file.bytes_of(self._names[key]))


def _cast(tensor: Tensor, dtype: torch.dtype, scaling: float) -> Tensor:
    """The tensor times `scaling`, rounded once."""
    if scaling != 1.0:
        is_exact = _is_exact(tensor, dtype, scaling)
        tensor = (tensor if is_exact else tensor.double()) * scaling
    return tensor.to(dtype)


def _is_exact(tensor: Tensor, dtype: torch.dtype, scaling: float) -> bool:
    """Whether a product has the same digits, so that it needn't be computed in more of them."""
    digits, exponent = math.frexp(scaling)
    return tensor.dtype == dtype and digits == 0.5 and abs(exponent) < 100
