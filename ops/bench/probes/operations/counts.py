"""What one decode step asks of a device."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of one part of a step, by the name of the function."""

    operations: dict[str, int] = field(default_factory=dict)
    """Calls of torch that start kernels, and calls of `Kernels`."""
    reads: dict[str, int] = field(default_factory=dict)
    """Copies of results to the host. Each waits for the device."""
    uploads: dict[str, int] = field(default_factory=dict)
    """Copies of the host's values to the device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCounts:
    """Counts of one decode step."""

    case: str
    """Name of the sequences' sampling parameters."""
    rows: int
    """Number of sequences."""
    adapters: int
    layers: int
    forward: Counts
    """Counts of the model's forward pass."""
    rest: Counts
    """Counts of everything else: the step's tensors, and sampling."""

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> Self:
        """Return the counts that were written as nested dicts."""
        parts = {part: Counts(**fields[part]) for part in ("forward", "rest")}
        return cls(**{**fields, **parts})


def add_one(counts: dict[str, int], name: str) -> None:
    """Add one to the count of a function."""
    counts[name] = counts.get(name, 0) + 1
