"""Lets tenants take turns at work whose CPU time they choose."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from worker.text.cpu_turns import MAX_SPENT_S, CpuTurns


class SpentTooMuch(Exception):
    """A tenant has used too much CPU time lately, or too much of its work waits."""


@dataclass(slots=True)
class Turn:
    """A turn, which counts its CPU time."""

    cpu_s: float = 0.0


class TenantTurns:
    """Turns of the tenants of one worker. All calls must come from one event loop."""

    def __init__(self, max_running: int) -> None:
        """Create turns of which `max_running` run at a time, each of another tenant."""
        self._turns: CpuTurns[asyncio.Future[None]] = CpuTurns(max_running)

    @asynccontextmanager
    async def turn(self, tenant: str) -> AsyncIterator[Turn]:
        """Wait for a turn, which lasts as long as the context. Raises SpentTooMuch."""
        if not self._turns.has_room(tenant):
            raise SpentTooMuch
        begins: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.add(tenant, begins)
        self._begin_turns()
        turn = Turn()
        try:
            await begins
            if self._turns.spent_s(tenant, time.monotonic()) >= MAX_SPENT_S:
                raise SpentTooMuch
            yield turn
        finally:
            if not begins.cancelled():
                self._turns.end(tenant, turn.cpu_s, time.monotonic())
                self._begin_turns()

    def _begin_turns(self) -> None:
        """Begin as many turns as may run."""
        while (found := self._turns.next(time.monotonic())) is not None:
            tenant, begins = found
            if begins.cancelled():  # the worker leaves
                self._turns.end(tenant, 0.0, time.monotonic())
            else:
                begins.set_result(None)
