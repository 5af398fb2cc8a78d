"""Side weights: an adapter's changes besides its low-rank terms."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from worker.lora.side.terms import SideTerm, TensorFunction


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SideWeights:
    """Vectors, terms and parameters of one adapter, by module name."""

    scales: Mapping[str, Tensor] = field(default_factory=dict)
    """`[out]` factors on outputs of linears, low-rank term included, as DoRA needs."""
    shifts: Mapping[str, Tensor] = field(default_factory=dict)
    """`[out]` vectors added to outputs of linears after the factors."""
    linears: Mapping[str, SideTerm] = field(default_factory=dict)
    """Terms of linears that have no vectors and no low-rank term."""
    embeddings: Mapping[str, SideTerm] = field(default_factory=dict)
    """Term of the input embedding."""
    parameters: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    """Replacements for parameters of norms and the embedding, by module and parameter name."""

    def map(self, function: TensorFunction) -> "SideWeights":
        """Return a copy with `function` applied to each tensor, always in the same order."""
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
        """All tensors, in the order of `map`."""
        tensors: list[Tensor] = []

        def collect(tensor: Tensor) -> Tensor:
            tensors.append(tensor)
            return tensor

        self.map(collect)
        return tensors

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)


ALIGNMENT = 64
"""Alignment in bytes of each tensor in packed side weights."""


def packed_bytes(weights: SideWeights) -> int:
    """Return the bytes that the tensors of `weights` take when packed, padding included."""
    return sum(_padded_bytes(tensor) for tensor in weights.tensors)


def unpacked(weights: SideWeights, memory: Tensor) -> SideWeights:
    """Return side weights with the shapes and dtypes of `weights` as views of `memory`.

    Args:
        weights: tensors on any device, including `meta`.
        memory: uint8, at least `packed_bytes(weights)` long. Holds the tensors in the order of
            `map`, each padded to ALIGNMENT.
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
