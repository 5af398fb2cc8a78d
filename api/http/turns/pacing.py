"""Spreads the start of many simultaneous requests over several turns of the event loop."""

import asyncio
from collections import deque

STARTS_PER_TURN = 16


class Pacer:
    """Starts a limited number of requests in each turn of the event loop, in order of arrival.

    Each start takes a fraction of a millisecond. If thousands of requests arrive at once, and all
    start in the same turn, running streams pause for seconds, and calls to Redis exceed their time
    limits although Redis has answered.
    """

    def __init__(self, starts_per_turn: int = STARTS_PER_TURN) -> None:
        self._starts_per_turn = starts_per_turn
        self._num_started = 0
        """Number of requests that have started in this turn of the event loop."""
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def start(self) -> None:
        """Wait until the request may start."""
        if self._num_started < self._starts_per_turn and not self._waiting:
            self._count_start()
        else:
            self._waiting.append(asyncio.get_running_loop().create_future())
            await self._waiting[-1]

    def _count_start(self) -> None:
        if not self._num_started:
            asyncio.get_running_loop().call_soon(self._begin_turn)
        self._num_started += 1

    def _begin_turn(self) -> None:
        self._num_started = 0
        while self._waiting and self._num_started < self._starts_per_turn:
            future = self._waiting.popleft()
            if not future.cancelled():
                future.set_result(None)
                self._count_start()
