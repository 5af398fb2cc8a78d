"""Turns: limits how many requests are accepted at the same time."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from api.http.turns.fair_slots import FairSlots
from shared.errors import RedisUnavailable

STALL_S = 1.0
"""If no turn has succeeded for this many seconds, a failed turn also fails the waiting requests."""


class Turns:
    """Lets a limited number of requests proceed at the same time. Tenants that wait take turns.

    Without the limit, thousands of requests that arrive at once would share Redis' connections and
    the event loop, and each call would exceed its time limit. These time limits don't include the
    wait for a turn. If Redis doesn't answer, the waiting requests fail together with those that
    have a turn.
    """

    def __init__(self, num_turns: int) -> None:
        """Let at most `num_turns` requests have a turn at the same time."""
        self._slots = FairSlots(num_turns)
        self._num_running = 0
        self._succeeded_s = 0.0
        """Time of the last success, or of the last turn that began while no other ran."""
        self._stalled_s = 0.0

    @asynccontextmanager
    async def turn(self, tenant: str) -> AsyncIterator[None]:
        """Wait for a turn of `tenant`, and hold it during the block.

        Raises:
            RedisUnavailable: Redis didn't answer requests that had a turn while this one waited.
        """
        arrived_s = time.monotonic()
        async with self._slots.slot(tenant):
            if self._stalled_s > arrived_s:
                raise RedisUnavailable("Redis didn't answer the requests before this one")
            if not self._num_running:
                self._succeeded_s = time.monotonic()
            self._num_running += 1
            try:
                yield
                self._succeeded_s = time.monotonic()
            except RedisUnavailable:
                if time.monotonic() - self._succeeded_s >= STALL_S:
                    self._stalled_s = time.monotonic()
                raise
            finally:
                self._num_running -= 1
