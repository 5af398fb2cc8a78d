"""Slots for concurrent work of a front end. Tenants take turns in getting them."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class FairSlots:
    """Semaphore that shares its slots fairly between tenants.

    A free slot goes to the waiting tenant that holds the fewest slots. If several tenants hold
    equally few, the slot goes to the tenant whose latest turn is longest ago. Requests of one
    tenant get slots in order of arrival.
    """

    def __init__(self, num_slots: int, *, max_per_tenant: int | None = None) -> None:
        """Create `num_slots` slots. One tenant may hold at most `max_per_tenant` of them.

        Without `max_per_tenant`, one tenant may hold all of them while no other tenant waits.
        """
        self._num_free = num_slots
        self._max_per_tenant = max_per_tenant or num_slots
        self._num_held: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """For each tenant, its waiting requests. Of the tenants that hold the fewest slots, the
        first one gets the next slot, and is then moved to the end."""

    @asynccontextmanager
    async def slot(self, tenant: str) -> AsyncIterator[None]:
        """Wait for a slot, and hold it during the block."""
        await self.acquire(tenant)
        try:
            yield
        finally:
            self.release(tenant)

    async def acquire(self, tenant: str) -> None:
        """Wait for a slot and take it. Callers must give it back with `release`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(future)
        self._give_out()
        try:
            await future
        except asyncio.CancelledError:
            if not future.cancelled():  # the slot was given at the moment of the cancellation
                self.release(tenant)
            raise

    def release(self, tenant: str) -> None:
        """Give back a slot that `tenant` holds."""
        self._num_free += 1
        self._num_held[tenant] -= 1
        if not self._num_held[tenant]:
            del self._num_held[tenant]
        self._give_out()

    def _give_out(self) -> None:
        while self._num_free and (tenant := self._next_tenant()) is not None:
            requests = self._waiting.pop(tenant)
            future = requests.popleft()
            if requests:
                self._waiting[tenant] = requests
            if not future.cancelled():
                self._num_free -= 1
                self._num_held[tenant] += 1
                future.set_result(None)

    def _next_tenant(self) -> str | None:
        may_hold_more = (t for t in self._waiting if self._num_held[t] < self._max_per_tenant)
        return min(may_hold_more, key=self._num_held.__getitem__, default=None)
