"""The threads that load adapters: few, each on one core, and behind everything else there."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from worker.lora.pauses import take_pauses

T = TypeVar("T")

SHARE = 0.2
"""Of a core, for one load while the engine steps."""
URGENT_SHARE = 0.5
"""For each of several, as more adapters are cold than one load at a time can serve; and for one
that has only begun, as most are done before a step is over."""
BEGINNING_S = 0.02
"""Of a core's time."""
NICENESS = 5
"""Of 19. A core that both want is the engine's for three quarters of the time."""


def share_of_core(num_running: int, worked_s: float, *, is_engine_busy: bool) -> float:
    """What each of so many working threads may take of a core's time, by what it has taken."""
    if not is_engine_busy:
        return 1.0
    is_urgent = num_running > 1 or worked_s < BEGINNING_S
    return URGENT_SHARE if is_urgent else SHARE


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
        self._own = threading.local()
        self._executor = ThreadPoolExecutor(number, "loader", initializer=begin)

    async def run(self, function: Callable[[], T]) -> T:
        """What `function` returns."""
        self._num_running += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._executor, self._run, function)
        finally:
            self._num_running -= 1

    def _run(self, function: Callable[[], T]) -> T:
        self._own.began_s = time.thread_time()
        return function()

    def _share(self) -> float:
        worked_s = time.thread_time() - self._own.began_s
        return share_of_core(self._num_running, worked_s, is_engine_busy=self._is_engine_busy())

    def close(self) -> None:
        """Take no more work; what runs still ends by itself."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _step_back() -> None:
    """Lower the calling thread's priority, where threads have one of their own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
