"""Side weights: an adapter's changes besides its low-rank terms."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from worker.lora.side.terms import SideTerm, TensorFunction


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SideWeights:
    """Side weights of one adapter. The keys of all mappings are module names."""

    scales: Mapping[str, Tensor] = field(default_factory=dict)
    """DoRA's factors `[out]`. They multiply a linear's output after its low-rank term is added."""
    shifts: Mapping[str, Tensor] = field(default_factory=dict)
    """Vectors `[out]`. They are added to a linear's output after `scales` are applied."""
    linears: Mapping[str, SideTerm] = field(default_factory=dict)
    """Side terms of linears, by module name. A linear that is listed here has no scale, shift or
    low-rank term."""
    embeddings: Mapping[str, SideTerm] = field(default_factory=dict)
    """Side term of the input embedding. Empty if the adapter has no such term."""
    parameters: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    """Replacement parameters of norms and the embedding, by module and parameter name."""

    def map(self, function: TensorFunction) -> "SideWeights":
        """Return a copy with `function` applied to each tensor. The order of calls is fixed."""
        return SideWeights(
            scales={name: function(tensor) for name, tensor in self.scales.items()},
            shifts={name: function(tensor) for name, tensor in self.shifts.items()},
            linears={name: term.map(function) for name, term in self.linears.items()},
            embeddings={name: term.map(function) for name, term in self.embeddings.items()},
            parameters={
                module: {name: function(tensor) for name, tensor in by_name.items()}
                for module, by_name in self.parameters.items()
            },
        )

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, in the order in which `map` processes them."""
        tensors: list[Tensor] = []

        def collect(tensor: Tensor) -> Tensor:
            tensors.append(tensor)
            return tensor

        self.map(collect)
        return tensors

    @property
    def num_bytes(self) -> int:
        """Total size of the tensors in bytes."""
        return sum(tensor.nbytes for tensor in self.tensors)


ALIGNMENT = 64
"""Alignment of each tensor in packed side weights, in bytes."""


def packed_bytes(weights: SideWeights) -> int:
    """Return the size in bytes of the packed tensors of `weights`, including padding."""
    return sum(_padded_bytes(tensor) for tensor in weights.tensors)


def unpacked(weights: SideWeights, memory: Tensor) -> SideWeights:
    """Return side weights whose tensors are views of `memory`.

    Args:
        weights: side weights with the shapes and dtypes of the views. Their device may be `meta`.
        memory: flat uint8 tensor of at least `packed_bytes(weights)` bytes. It holds the tensors in
            the order of `SideWeights.tensors`, each padded to a multiple of ALIGNMENT.
    """
    start = 0

    def view(tensor: Tensor) -> Tensor:
        nonlocal start
        part = memory[start : start + tensor.nbytes]
        start += _padded_bytes(tensor)
        return part.view(tensor.dtype).view(tensor.shape)

    return weights.map(view)


def _padded_bytes(tensor: Tensor) -> int:
    return -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
