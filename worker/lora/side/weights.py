"""What an adapter changes besides its low-rank terms."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from worker.lora.side.terms import OfTensor, SideTerm


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SideWeights:
    """Vectors, whole parameters and terms, by module name."""

    scales: Mapping[str, Tensor] = field(default_factory=dict)
    """`[out]` of linears: factors on the output, low-rank term included. DoRA's."""
    shifts: Mapping[str, Tensor] = field(default_factory=dict)
    """`[out]` of linears: what is added behind that."""
    linears: Mapping[str, SideTerm] = field(default_factory=dict)
    """Of linears, instead of vectors and low-rank terms."""
    embeddings: Mapping[str, SideTerm] = field(default_factory=dict)
    """Of the input embedding."""
    parameters: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    """Of norms and the embedding, by parameter name too: what takes the place of the base's."""

    def map(self, function: OfTensor) -> "SideWeights":
        """The same with `function` of each tensor in its place, always in the same order."""
        return SideWeights(
            scales={name: function(tensor) for name, tensor in self.scales.items()},
            shifts={name: function(tensor) for name, tensor in self.shifts.items()},
            linears={name: term.map(function) for name, term in self.linears.items()},
            embeddings={name: term.map(function) for name, term in self.embeddings.items()},
            parameters={
                module: {name: function(tensor) for name, tensor in of_module.items()}
                for module, of_module in self.parameters.items()
            },
        )

    @property
    def tensors(self) -> list[Tensor]:
        """All of them, in the order of `map`."""
        found: list[Tensor] = []

        def note(tensor: Tensor) -> Tensor:
            found.append(tensor)
            return tensor

        self.map(note)
        return found

    @property
    def num_bytes(self) -> int:
        """Bytes of all."""
        return sum(tensor.nbytes for tensor in self.tensors)


ALIGNMENT = 64
"""Bytes that each tensor begins at a multiple of, where several lie in one piece of memory."""


def packed_bytes(weights: SideWeights) -> int:
    """How many bytes hold all tensors of `weights`, one behind the other."""
    return sum(_padded(tensor) for tensor in weights.tensors)


def unpacked(weights: SideWeights, memory: Tensor) -> SideWeights:
    """`weights`, of which shapes and dtypes count alone, as views of `memory`.

    Args:
        weights: tensors on any device, `meta` too.
        memory: uint8, of `packed_bytes` at least, where the tensors lie one behind the other.
    """
    start = 0

    def view(tensor: Tensor) -> Tensor:
        nonlocal start
        part = memory[start : start + tensor.nbytes]
        start += _padded(tensor)
        return part.view(tensor.dtype).view(tensor.shape)

    return weights.map(view)


def _padded(tensor: Tensor) -> int:
    return -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
