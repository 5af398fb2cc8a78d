"""The threads that load adapters: few, each on one core, and behind everything else there."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from worker.lora.throttle import take_pauses

T = TypeVar("T")

SHARE = 0.2
"""Of a core, for one load while the engine steps."""
CROWDED_SHARE = 0.5
"""For each of several: more adapters are cold than one load at a time can serve."""
NICENESS = 5
"""Of 19. A core that both want is the engine's for three quarters of the time."""


def share_of_core(num_running: int, *, is_engine_busy: bool) -> float:
    """What each of so many working threads may take of a core's time."""
    if not is_engine_busy:
        return 1.0
    return SHARE if num_running <= 1 else CROWDED_SHARE


class LoaderThreads:
    """Runs what takes long, away from the event loop and the engine."""

    def __init__(
        self, number: int, *, spare_cores: Callable[[], None], is_engine_busy: Callable[[], bool]
    ) -> None:
        """Start none yet.

        Args:
            number: how many there are at most.
            spare_cores: each calls it first; leaves it one core.
            is_engine_busy: whether to go slowly, for the engine's sake.
        """

        def begin() -> None:
            spare_cores()
            take_pauses(self._share)
            _step_back()

        self._is_engine_busy = is_engine_busy
        self._num_running = 0
        self._executor = ThreadPoolExecutor(number, "loader", initializer=begin)

    async def run(self, function: Callable[[], T]) -> T:
        """What `function` returns."""
        self._num_running += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, function)
        finally:
            self._num_running -= 1

    def _share(self) -> float:
        return share_of_core(self._num_running, is_engine_busy=self._is_engine_busy())

    def close(self) -> None:
        """Take no more work; what runs still ends by itself."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _step_back() -> None:
    """Lower the calling thread's priority, where threads have one of their own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
