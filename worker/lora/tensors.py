"""The tensors of an adapter by what they are, checked to be numbers."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from shared.errors import AdapterRejected
from worker.lora.tensor_file import is_finite
from worker.lora.tensor_names import TensorKey


class AdapterTensors:
    """What an adapter's file holds, each tensor in its own dtype, on the CPU; all are finite."""

    def __init__(self, tensors: Mapping[str, Tensor], names: Mapping[TensorKey, str]) -> None:
        """Take those of `tensors` that `names` names."""
        self._names = names
        self._tensors = {key: tensors[name] for key, name in names.items()}

    def __getitem__(self, key: TensorKey) -> Tensor:
        return self._tensors[key]

    def drop(self, key: TensorKey) -> None:
        """Forget a tensor."""
        del self._tensors[key]

    def find(self, *keys: TensorKey) -> TensorKey | None:
        """The first of `keys` that is there."""
        return next((key for key in keys if key in self._tensors), None)

    def cast(self, key: TensorKey, dtype: torch.dtype, scaling: float = 1.0) -> Tensor:
        """The tensor times `scaling`, rounded once.

        Raises:
            AdapterRejected: `dtype` can't hold it.
        """
        tensor = self._tensors[key]
        made = (tensor if scaling == 1.0 else tensor.double() * scaling).to(dtype)
        if made is not tensor and not is_finite(made):
            raise AdapterRejected(f"tensor {self._names[key]} overflows {dtype} ({scaling=})")
        return made.contiguous()

    def refusal(self, key: TensorKey, why: str) -> AdapterRejected:
        """The error that names a tensor."""
        return AdapterRejected(f"tensor {self._names[key]} {why}")

    def others(self, keys: Iterable[TensorKey]) -> list[TensorKey]:
        """Every tensor but `keys`, sorted."""
        return sorted(self._tensors.keys() - set(keys))

    def hash_into(self, sha: Any, facts: list[str], keys: Iterable[TensorKey]) -> None:
        """Let a digest cover `facts` and, of `keys`, dtypes, shapes and all bytes."""
        tensors = [self._tensors[key] for key in keys]
        facts = facts + [f"{t.dtype}{list(t.shape)}" for t in tensors]
        sha.update(json.dumps(facts).encode())
        for tensor in tensors:
            sha.update(tensor.contiguous().view(torch.uint8).numpy().data)
