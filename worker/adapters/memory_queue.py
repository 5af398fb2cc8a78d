"""Adapters in line for memory: first come, first served."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from shared.protocol.ids import AdapterVersion
from worker.adapters.yield_policy import Room

T = TypeVar("T")


class Line:
    """Who came first gets what is freed first, however many others want it too."""

    def __init__(
        self,
        room: Room,
        *,
        num_jobs: Callable[[], Mapping[AdapterVersion, int]],
        on_wait: Callable[[], None],
    ) -> None:
        """Nobody is in it.

        Args:
            room: who makes room for those in the line.
            num_jobs: how many jobs each resident adapter has.
            on_wait: called when somebody begins to wait.
        """
        self.versions: set[AdapterVersion] = set()
        """Who is in it."""
        self._room = room
        self._num_jobs = num_jobs
        self._on_wait = on_wait
        self._turn = asyncio.Lock()
        self._is_freed = asyncio.Event()

    def job_gone(self) -> None:
        """Note that a job has ended."""
        if self._room.job_gone(self._num_jobs()):
            self._is_freed.set()

    def loaded(self) -> None:
        """Note that an adapter is resident: if its jobs are gone already, it may go itself."""
        self._room.loaded()
        self._is_freed.set()

    def memory_freed(self) -> None:
        """Note that memory was given up otherwise."""
        self._room.memory_freed()
        self._is_freed.set()

    async def place(
        self, version: AdapterVersion, place: Callable[[], Awaitable[T | None]], patience_s: float
    ) -> T | None:
        """What `place` gives; None if that is None for `patience_s`.

        It is asked again whenever memory is freed.
        """
        until_s = asyncio.get_running_loop().time() + patience_s
        self.versions.add(version)
        try:
            async with self._turn:
                while True:
                    self._is_freed.clear()
                    if (found := await place()) is not None:
                        return found
                    self._room.want(version, self._num_jobs())
                    self._on_wait()
                    async with asyncio.timeout_at(until_s):
                        await self._is_freed.wait()
        except TimeoutError:
            return None
        finally:
            self._room.wait_no_more(version)
            self.versions.discard(version)
