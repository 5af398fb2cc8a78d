"""What an adapter changes besides its low-rank terms."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from worker.lora.side_terms import SideTerm


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

    @property
    def num_bytes(self) -> int:
        """Bytes of all."""
        return sum(tensor.nbytes for tensor in self._tensors())

    def to(self, device: torch.device) -> "SideWeights":
        """The same on a device."""
        return SideWeights(
            scales={name: tensor.to(device) for name, tensor in self.scales.items()},
            shifts={name: tensor.to(device) for name, tensor in self.shifts.items()},
            linears={name: term.to(device) for name, term in self.linears.items()},
            embeddings={name: term.to(device) for name, term in self.embeddings.items()},
            parameters={
                module: {name: tensor.to(device) for name, tensor in of_module.items()}
                for module, of_module in self.parameters.items()
            },
        )

    def _tensors(self) -> Iterator[Tensor]:
        yield from self.scales.values()
        yield from self.shifts.values()
        for term in (*self.linears.values(), *self.embeddings.values()):
            yield from term.tensors()
        for of_module in self.parameters.values():
            yield from of_module.values()
