"""Settings of one chaos run."""

from dataclasses import dataclass


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
    faults: tuple[str, ...]
    """Kinds of faults that are injected."""
    each: int
    """Number of times that each kind of fault must take place."""
    step_ms: int
    """Mean milliseconds per step of the engines."""
    retain_s: int
    """Seconds for which finished jobs are kept."""
