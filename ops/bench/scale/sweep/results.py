"""Figures of the sweep."""

from collections.abc import Mapping
from dataclasses import dataclass

from ops.bench.scale.key_bytes import KindBytes
from ops.bench.scale.sweep.loads import Load, Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandUse:
    """Use of one Redis command, by scripts and clients."""

    calls_per_s: float
    ms_per_s: float
    """Time in Redis. EVALSHA includes the commands of the scripts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Figures of one load."""

    load: Load
    seconds: float
    jobs_per_s: float
    tokens_per_s: float
    ceiling_tokens_per_s: float
    """Rate of the streams if each step of an engine gave each stream a token."""
    delay_p50_ms: float
    """Time from the end of the engine's step to the client. NaN without tokens."""
    delay_p99_ms: float
    tokens_per_step: float
    """Tokens of an engine's step, which a worker publishes in one call. NaN without tokens."""
    cores: dict[str, float]
    """CPU seconds per second by part. The part `workers` doesn't include the engines."""
    busy_cores: float
    """CPU seconds per second of everything on this machine."""
    commands: dict[str, CommandUse]
    """The Redis commands that took the most time."""

    def describe(self) -> str:
        """Return the figures of a load as one line."""
        cores = ", ".join(f"{name} {used:.2f}" for name, used in self.cores.items())
        return (
            f"{self.load.streams} streams of {self.load.tokens_per_job} tokens"
            f"{' over HTTP' if self.load.over_http else ''}: {self.jobs_per_s:,.0f} jobs/s, "
            f"{self.tokens_per_s:,.0f} tokens/s of {self.ceiling_tokens_per_s:,.0f}, delay p50 "
            f"{self.delay_p50_ms:.1f} ms, p99 {self.delay_p99_ms:.1f} ms; cores: {cores}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolResults:
    """Figures of one pool."""

    results: tuple[Measured, ...]
    running_bytes: Mapping[str, KindBytes]
    """Memory of Redis by kind of key under the last load with the most streams."""
    num_running: int
    """Number of streams of that load."""
    ended_bytes: Mapping[str, KindBytes]
    """Memory of Redis by kind of key after all loads, when no job runs."""
    lease_losses: int
    """Number of leases that workers lost, because the machine was too busy to renew them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Figures of both pools."""

    shape: Shape
    large: PoolResults
    small: PoolResults
