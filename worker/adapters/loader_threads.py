"""Threads that load adapters at low priority."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from worker.lora.throttle import throttle_thread

T = TypeVar("T")

SHARE = 0.2
"""Share of a core that one load may use while the engine steps."""
CROWDED_SHARE = 0.5
"""Share of a core for each load while several run, because adapters are then needed quickly."""
NICENESS = 5
"""Niceness of loader threads: on a shared core, the engine's thread gets 3/4 of the time."""


def share_of_core(num_running: int, *, is_engine_busy: bool) -> float:
    """Return the share of a core that each of `num_running` loads may use."""
    if not is_engine_busy:
        return 1.0
    return SHARE if num_running <= 1 else CROWDED_SHARE


class LoaderThreads:
    """Runs blocking functions on threads other than the event loop's and the engine's."""

    def __init__(
        self, number: int, *, spare_cores: Callable[[], None], is_engine_busy: Callable[[], bool]
    ) -> None:
        """Create a pool of `number` threads. They start when they are needed.

        Each thread calls `spare_cores` first, which limits the thread to one core.
        `is_engine_busy` returns whether loads must leave CPU time to the engine.
        """

        def begin() -> None:
            spare_cores()
            throttle_thread(
                lambda: share_of_core(self._num_running, is_engine_busy=is_engine_busy())
            )
            if sys.platform == "linux":  # where each thread has its own priority
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)

        self._num_running = 0
        self._executor = ThreadPoolExecutor(number, "loader", initializer=begin)

    async def run(self, function: Callable[[], T]) -> T:
        """Run `function` on a thread, and return its result."""
        self._num_running += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, function)
        finally:
            self._num_running -= 1

    def close(self) -> None:
        """Stop accepting work. Functions that already run still complete."""
        self._executor.shutdown(wait=False, cancel_futures=True)
