"""Base class of faults, and the function that injects a fault, observes it and heals it."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from ops.lab.chaos.cluster.pool import Pool
from ops.lab.chaos.load.fleet import Fleet
from ops.lab.chaos.polling import seen, until
from shared.errors import LorikeetError

EVIDENCE_S = 30.0
"""Maximum seconds from the injection of a fault until there is evidence of it."""
RECOVERY_S = 90.0
"""Maximum seconds from the end of a fault until its target works as before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The pool and the clients that faults act on, and a generator for random choices of faults."""

    pool: Pool
    fleet: Fleet
    rng: Random


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRecord:
    """One injected fault. Times are of the monotonic clock."""

    kind: str
    subject: str
    target: str
    """The process or server that the fault hit."""
    injected_s: float
    evidence: str
    """Observation that shows that the fault took place; empty if the fault didn't take place."""
    healed_s: float
    """Time at which the cause of the fault was removed."""
    recovered_s: float | None
    """Time from which the target worked again as it did before the fault; None if it never did."""
    error: str
    """Why the fault failed; empty if it took place and the pool recovered."""


class Fault(ABC):
    """One fault. Each object is used once."""

    kind: ClassVar[str]
    """Name of this kind of fault."""
    subject: ClassVar[str]
    """Part of the pool that this kind hits."""
    needs_network: ClassVar[bool] = False
    """Whether the fault needs a process that runs on a simulated remote host."""
    hold_s: ClassVar[tuple[float, float]] = (0.0, 0.0)
    """Minimum and maximum seconds from the evidence until `heal`."""

    def __init__(self, scene: Scene) -> None:
        self._pool = scene.pool
        self._fleet = scene.fleet
        self._rng = scene.rng
        self.target = ""

    @abstractmethod
    async def inject(self) -> None:
        """Cause the fault. May be called again if Redis was unavailable."""

    @abstractmethod
    async def evidence(self) -> str:
        """Return an observation that shows that the fault took place, or an empty text."""

    async def heal(self) -> None:  # noqa: B027 -- many faults end by themselves
        """Remove the cause of the fault. May be called again if Redis was unavailable."""

    @abstractmethod
    async def has_recovered(self) -> bool:
        """Return whether the part that was hit works as before."""


async def strike(fault: Fault, rng: Random) -> FaultRecord:
    """Inject a fault, observe it, heal it, and wait until its target has recovered."""
    injected_s = time.monotonic()
    evidence, errors = "", []
    try:
        await until(lambda: _done(fault.inject), "injected", within_s=EVIDENCE_S)
        evidence = await until(fault.evidence, "evidence of it", within_s=EVIDENCE_S)
        if fault.hold_s[1]:
            await asyncio.sleep(rng.uniform(*fault.hold_s))
            evidence = await seen(fault.evidence, "") or evidence  # its numbers may have grown
    except LorikeetError as failure:
        errors.append(f"did not take place: {failure}")
    healed_s, recovered_s = await _recover(fault, errors)
    return FaultRecord(
        kind=fault.kind,
        subject=fault.subject,
        target=fault.target,
        injected_s=injected_s,
        evidence=evidence,
        healed_s=healed_s,
        recovered_s=recovered_s,
        error="; ".join(errors),
    )


async def _recover(fault: Fault, errors: list[str]) -> tuple[float, float | None]:
    """Heal a fault. Return the times at which it was healed and at which its target recovered."""
    try:
        await until(lambda: _done(fault.heal), "healed", within_s=RECOVERY_S)
        healed_s = time.monotonic()
        await until(fault.has_recovered, f"{fault.target} recovered", within_s=RECOVERY_S)
    except LorikeetError as failure:
        errors.append(str(failure))
        return time.monotonic(), None
    return healed_s, time.monotonic()


async def _done(act: Callable[[], Awaitable[None]]) -> bool:
    await act()
    return True
