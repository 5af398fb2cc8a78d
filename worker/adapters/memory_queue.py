"""FIFO queue for adapter memory."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from shared.protocol.ids import AdapterVersion
from worker.adapters.residency import Change, Jobs, Residency

T = TypeVar("T")


class MemoryQueue:
    """Gives freed device memory to the version that has waited longest."""

    def __init__(self, residency: Residency, *, num_jobs: Callable[[], Jobs]) -> None:
        """Create an empty queue. `num_jobs` returns the number of running jobs by version."""
        self._residency = residency
        self._num_jobs = num_jobs
        self._turn = asyncio.Lock()
        self._is_freed = asyncio.Event()
        residency.subscribe(Change.MEMORY, self._is_freed.set)

    async def place(
        self, version: AdapterVersion, place: Callable[[], Awaitable[T | None]], patience_s: float
    ) -> T | None:
        """Call the function `place` until it returns a value, and return that value.

        The function is called again whenever device memory may be free. Return None if the function
        has returned no value after `patience_s` seconds.
        """
        until_s = asyncio.get_running_loop().time() + patience_s
        self._residency.queued_for_memory(version)
        try:
            async with self._turn:
                while True:
                    self._is_freed.clear()
                    if (found := await place()) is not None:
                        return found
                    self._residency.found_no_memory(version, self._num_jobs())
                    async with asyncio.timeout_at(until_s):
                        await self._is_freed.wait()
        except TimeoutError:
            return None
        finally:
            self._residency.memory_wait_ended(version)
