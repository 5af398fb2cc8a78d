"""Plans the times at which faults are injected."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

WARM_UP_S = 5.0
"""Seconds of undisturbed load before the first fault."""


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """A fault of the plan."""

    at_s: float
    """Seconds from the start of the load. The fault waits until the faults before it are over."""
    kind: str


def plan_faults(
    kinds: Sequence[str], *, each: int, total_s: float, seed: int
) -> list[PlannedFault]:
    """Return a plan with `each` faults of every kind, evenly spaced within `total_s` seconds.

    The kinds come in rounds. Each round contains every kind once, in an order that the seed
    determines.
    """
    rng = Random(f"{seed}:schedule")
    order: list[str] = []
    for _ in range(each):
        order += rng.sample(kinds, len(kinds))
    pause_s = max(0.0, total_s - WARM_UP_S) / max(1, len(order))
    return [PlannedFault(WARM_UP_S + i * pause_s, kind) for i, kind in enumerate(order)]
