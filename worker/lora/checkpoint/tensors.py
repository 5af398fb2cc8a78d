"""Provides an adapter's tensors by module and role, and checks that they are finite."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from shared.errors import AdapterRejected
from worker.lora.checkpoint.tensor_file import FileTensors, is_finite
from worker.lora.checkpoint.tensor_names import TensorKey, TensorRole


class AdapterTensors:
    """Tensors of an adapter's file, on the CPU, in the dtypes of the file."""

    def __init__(
        self, file: FileTensors, names: Mapping[TensorKey, str], *, are_checked: bool = False
    ) -> None:
        """Create a collection of the tensors of `file` that `names` lists.

        Set `are_checked` if an earlier read found all values finite, both as stored in the file and
        after they were scaled and cast. The values are then not checked again.
        """
        self._file = file
        self._are_checked = are_checked
        self._names = dict(names)

    def check_finite(self) -> None:
        """Check that all tensors are finite, unless an earlier read did. Raises AdapterRejected."""
        if not self._are_checked:
            self._file.check_finite()

    def __getitem__(self, key: TensorKey) -> Tensor:
        return self._file[self._names[key]]

    @property
    def roles(self) -> set[TensorRole]:
        """Roles of the tensors."""
        return {key.role for key in self._names}

    def drop(self, key: TensorKey) -> None:
        """Remove the tensor of `key` from this collection."""
        del self._names[key]

    def find(self, *keys: TensorKey) -> TensorKey | None:
        """Return the first of `keys` that has a tensor, or None if no key has one."""
        return next((key for key in keys if key in self._names), None)

    def cast(self, key: TensorKey, dtype: torch.dtype, scaling: float = 1.0) -> Tensor:
        """Return the tensor of `key`, multiplied by `scaling` and cast to `dtype`.

        Each value is rounded only once.

        Raises:
            AdapterRejected: a value overflows `dtype`.
        """
        tensor = self[key]
        result = _cast(tensor, dtype, scaling)
        if result is not tensor and not self._are_finite(result):
            raise AdapterRejected(
                f"tensor {self._names[key]} overflows {dtype} ({scaling=}); serve the base model "
                "with --dtype float32"
            )
        return result

    def cast_all(
        self, keys: Sequence[TensorKey], dtype: torch.dtype, scaling: float = 1.0
    ) -> tuple[Tensor, float]:
        """Stack tensors of equal shape and dtype along a new first dimension, cast to `dtype`.

        Returns:
            Two values: the stack, and the factor by which callers must still multiply the stack.
            The factor is `scaling` if scaling and casting the tensors needs no rounding. Otherwise
            the stack is already scaled, and the factor is 1.

        Raises:
            AdapterRejected: a value overflows `dtype`.
        """
        tensors = self._file.stacked([self._names[key] for key in keys])
        is_exact = _is_exact(tensors, dtype, scaling)
        if is_exact and (scaling == 1 or self._are_checked):
            return tensors, scaling
        result = _cast(tensors, dtype, scaling)
        if not self._are_finite(result):
            for key in keys:
                self.cast(key, dtype, scaling)  # raises for the tensor that overflows
        return (tensors, scaling) if is_exact else (result, 1.0)

    def refusal(self, key: TensorKey, reason: str) -> AdapterRejected:
        """Return an error. Its message starts with the name of the tensor of `key`."""
        return AdapterRejected(f"tensor {self._names[key]} {reason}")

    def other_keys(self, keys: Iterable[TensorKey]) -> list[TensorKey]:
        """Return the keys of all tensors except `keys`, sorted."""
        return sorted(self._names.keys() - set(keys))

    def digest_prefix(self, key: TensorKey, scaling: float) -> bytes:
        """Return an encoding of a tensor's name, scaling, dtype and shape, for use in digests."""
        kind = self._file.infos[self._names[key]].kind
        return json.dumps([str(key), scaling.hex(), kind]).encode()

    def hash_into(self, sha: Any, *keys: TensorKey) -> None:
        """Add the bytes of tensors, as stored in the file, to the digest `sha`."""
        for key in keys:
            sha.update(self._file.bytes_of(self._names[key]))

    def _are_finite(self, result: Tensor) -> bool:
        return self._are_checked or is_finite(result)


def _cast(tensor: Tensor, dtype: torch.dtype, scaling: float) -> Tensor:
    """Multiply the tensor by `scaling` and cast it to `dtype`. Each value is rounded only once."""
    if scaling != 1.0:
        is_exact = _is_exact(tensor, dtype, scaling)
        tensor = (tensor if is_exact else tensor.double()) * scaling
    return tensor.to(dtype)


def _is_exact(tensor: Tensor, dtype: torch.dtype, scaling: float) -> bool:
    """Return whether scaling and casting needs no rounding, as for powers of two."""
    mantissa, exponent = math.frexp(scaling)
    return tensor.dtype == dtype and mantissa == 0.5 and abs(exponent) < 100
