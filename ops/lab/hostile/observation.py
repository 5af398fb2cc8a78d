"""Measures how an attack on a pool affects the other tenant's waits and the processes' memory."""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from ops.lab.hostile.adapter_pool import AdapterPool
from ops.lab.hostile.neighbour import Neighbour, Waits

MAX_LONGER_S = 1.0
"""Maximum seconds by which the other tenant's longest wait may grow during the attack."""
MAX_GROWTH_MIB = 64.0
"""Maximum growth of a process's memory after the warm-up, in MiB."""
MAX_SHOWN = 20

Attack = Callable[[Callable[[], None]], Awaitable[None]]
"""Function that attacks a pool. After its warm-up, it calls the function passed to it."""


@dataclass(slots=True, kw_only=True)
class Observation:
    """The other tenant's waits before and during an attack, and the memory of the processes."""

    undisturbed: Waits = field(default_factory=Waits)
    attacked: Waits = field(default_factory=Waits)
    memory_mib: dict[str, list[float]] = field(default_factory=dict)
    """Memory of each process in MiB after the warm-up and at the end, by role."""
    ended: list[str] = field(default_factory=list)
    """Roles of the processes that ended during the attack."""

    def faults(self, *, compares: bool) -> list[str]:
        """Return a description of each fault. Longer waits count only if `compares` is true."""
        found = [f"the process {role} ended" for role in self.ended]
        for waits in (self.undisturbed, self.attacked):
            found += [f"a request of the other tenant failed: {each}" for each in waits.failures]
        for name in ("health_s", "stream_s") if compares else ():
            longer_s = getattr(self.attacked, name) - getattr(self.undisturbed, name)
            if longer_s > MAX_LONGER_S:
                found.append(f"the other tenant waited {longer_s:.2f} s longer: {name}")
        for role, (start, end) in self.memory_mib.items():
            if end - start > MAX_GROWTH_MIB:
                found.append(f"the process {role} grew from {start} to {end} MiB")
        return found

    def says(self) -> list[str]:
        """Return the findings as sentences."""
        before, during = self.undisturbed, self.attacked
        return [
            f"longest wait of the other tenant, before and during the attack: /health "
            f"{before.health_s:.2f} and {during.health_s:.2f} s, streams {before.stream_s:.2f} and "
            f"{during.stream_s:.2f} s",
            *(f"memory of {role}: {a} to {b} MiB" for role, (a, b) in self.memory_mib.items()),
        ]


async def observe(pool: AdapterPool, peace: Awaitable[None], attack: Attack) -> Observation:
    """Measure the other tenant's waits twice: until `peace` is done, and then during `attack`."""
    observed = Observation()
    neighbour = Neighbour(pool)
    warm: dict[str, float] = {}
    async with neighbour.running():
        await peace
        observed.undisturbed, neighbour.waits = neighbour.waits, observed.attacked
        await attack(lambda: warm.update(pool.memory_mib()))
    after = pool.memory_mib()
    observed.memory_mib = {
        role: [round(start, 1), round(after.get(role, 0), 1)] for role, start in warm.items()
    }
    observed.ended = sorted(pool.processes.keys() - after.keys())
    return observed


@dataclass(slots=True, kw_only=True)
class AttackReport:
    """Findings of an attack with requests."""

    seed: int
    statuses: Counter[int] = field(default_factory=Counter)
    """Number of responses with each HTTP status."""
    observation: Observation = field(default_factory=Observation)
    failures: list[str] = field(default_factory=list)

    def fail(self, reason: str) -> None:
        """Record a failure."""
        if len(self.failures) < MAX_SHOWN:
            self.failures.append(reason)

    def count(self, what: str, reply: Any, *, may_be_late: bool = False) -> None:
        """Count a response. A status of 500 or above is a failure, except a 503 with Retry-After.

        `reply` is a response of httpx or requests. With `may_be_late`, a 504 is no failure, either.
        """
        status = reply.status_code
        self.statuses[status] += 1
        is_overload = status == 503 and "retry-after" in reply.headers
        if status >= 500 and not is_overload and not (may_be_late and status == 504):
            self.fail(f"{what}: {status} {reply.text[:200]}")
