"""Lets tenants take turns at work whose CPU time depends on their requests."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_WAITING = 256
"""Maximum number of items of one tenant that wait for their turns."""
MAX_SPENT_S = 20.0
"""Limit on a tenant's recent CPU time in seconds. Further work is refused."""
FORGIVEN_PER_S = 0.25
"""CPU seconds that are subtracted from a tenant's recent CPU time in each second.

A tenant can therefore use this share of a core indefinitely."""


class SpentTooMuch(Exception):
    """Work is refused: the tenant has used too much CPU time, or has too much waiting work."""


@dataclass(slots=True)
class Turn:
    """One turn of a tenant. The caller sets the CPU time that the work took."""

    cpu_s: float = 0.0


class CpuTurns(Generic[T]):
    """Queue of work in which tenants take turns. Callers pass the current time. Pure.

    At most one item of a tenant runs at a time. The next turn is for the waiting tenant whose work
    has used the least CPU time lately.
    """

    def __init__(self, max_running: int) -> None:
        """Create a queue. At most `max_running` items of different tenants run at a time."""
        self._max_running = max_running
        self._waiting: dict[str, deque[T]] = {}
        """Waiting items by tenant, in order of arrival. Tenants are in order of arrival, too."""
        self._running: set[str] = set()
        self._spent: dict[str, tuple[float, float]] = {}
        """For each tenant: its recent CPU seconds, and when they were last updated, in seconds."""

    def has_room(self, tenant: str) -> bool:
        """Return whether another item of the tenant may wait."""
        return len(self._waiting.get(tenant, ())) < MAX_WAITING

    def add(self, tenant: str, item: T) -> None:
        """Queue an item."""
        self._waiting.setdefault(tenant, deque()).append(item)

    def next(self, now_s: float) -> tuple[str, T] | None:
        """Begin the next turn, and return its tenant and item. Return None if no turn may begin."""
        able = [tenant for tenant in self._waiting if tenant not in self._running]
        if not able or len(self._running) >= self._max_running:
            return None
        tenant = min(able, key=lambda each: self.spent_s(each, now_s))
        item = self._waiting[tenant].popleft()
        if not self._waiting[tenant]:
            del self._waiting[tenant]
        self._running.add(tenant)
        return tenant, item

    def end(self, tenant: str, cpu_s: float, now_s: float) -> None:
        """End the turn of a tenant. The turn took `cpu_s` seconds of CPU time."""
        self._running.remove(tenant)
        self._spent[tenant] = (self.spent_s(tenant, now_s) + cpu_s, now_s)
        forgiven = [each for each in self._spent if self.spent_s(each, now_s) == 0]
        for each in forgiven:
            del self._spent[each]

    def spent_s(self, tenant: str, now_s: float) -> float:
        """Return the tenant's CPU seconds, less `FORGIVEN_PER_S` per second since its last turn."""
        spent_s, at_s = self._spent.get(tenant, (0.0, now_s))
        return max(0.0, spent_s - FORGIVEN_PER_S * (now_s - at_s))


class TenantTurns:
    """Lets a worker's tenants take turns at work. All calls must come from one event loop."""

    def __init__(self, max_running: int, *, refuses: bool = True) -> None:
        """Let at most `max_running` turns of different tenants run at a time.

        With `refuses`, work is refused if its tenant has used too much CPU time, or has too much
        waiting work. Without `refuses`, such work only waits longer than the work of other tenants.
        """
        self._turns: CpuTurns[asyncio.Future[None]] = CpuTurns(max_running)
        self._refuses = refuses

    @asynccontextmanager
    async def turn(self, tenant: str) -> AsyncIterator[Turn]:
        """Wait for a turn, which lasts as long as the context.

        Raises:
            SpentTooMuch: the tenant's work is refused.
        """
        if self._refuses and not self._turns.has_room(tenant):
            raise SpentTooMuch
        begins: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.add(tenant, begins)
        self._begin_turns()
        turn = Turn()
        try:
            await begins
            if self._refuses and self._turns.spent_s(tenant, time.monotonic()) >= MAX_SPENT_S:
                raise SpentTooMuch
            yield turn
        finally:
            if not begins.cancelled():
                self._turns.end(tenant, turn.cpu_s, time.monotonic())
                self._begin_turns()

    def _begin_turns(self) -> None:
        """Begin all turns that may run now."""
        while (found := self._turns.next(time.monotonic())) is not None:
            tenant, begins = found
            if begins.cancelled():  # the worker leaves
                self._turns.end(tenant, 0.0, time.monotonic())
            else:
                begins.set_result(None)
