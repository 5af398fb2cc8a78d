"""The threads that load adapters: few, each on one core, and behind everything else there."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from worker.lora.pauses import take_pauses

T = TypeVar("T")

SHARE = 0.2
"""Of a core, while the engine steps."""
NICENESS = 5
"""Of 19. A core that both want is the engine's for three quarters of the time."""


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
            take_pauses(SHARE, is_engine_busy)
            _step_back()

        self._executor = ThreadPoolExecutor(number, "loader", initializer=begin)

    async def run(self, function: Callable[[], T]) -> T:
        """What `function` returns."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)

    def close(self) -> None:
        """Take no more work; what runs still ends by itself."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _step_back() -> None:
    """Lower the calling thread's priority, where threads have one of their own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
