"""Settings of one chaos run."""

from dataclasses import dataclass
from enum import StrEnum


class EngineKind(StrEnum):
    """Engine of the workers."""

    SIMULATED = "simulated"
    """Each token is a hash of everything before it, so that every answer can be checked alone."""
    NATIVE = "native"
    """The real engine. Answers are compared with those of an undisturbed pool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings of one chaos run."""

    minutes: float
    """Minutes of load and faults."""
    streams: int
    """Number of concurrent clients."""
    adapters: int
    workers: int
    apis: int
    durability: str
    seed: int
    """Seed of the faults, their targets and the requests."""
    engine: EngineKind
    model: str
    faults: tuple[str, ...]
    """Kinds of faults that are injected."""
    each: int
    """Number of times that each kind of fault must take place."""
    step_ms: int
    """Mean milliseconds per step of the simulated engine."""
    retain_s: int
    """Seconds for which finished jobs are kept."""
