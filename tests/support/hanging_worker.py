"""A simulated worker that hangs after SIGUSR1: `python hanging_worker.py KIND ARGUMENTS...`.

The arguments are those of `lorikeet`. The kind is a key of `KINDS`.
"""

import ctypes
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from ops.cli import main
from worker.engine_simulated.engine import SimulatedEngine

FOREVER_S = 10**6


def hold_in_engine_thread() -> None:
    """Hold the GIL in the engine's next step."""
    step = SimulatedEngine.step

    def hanging_step(self: SimulatedEngine) -> Any:
        if self._hangs:
            ctypes.PyDLL(None).sleep(FOREVER_S)
        return step(self)

    SimulatedEngine.step = hanging_step  # type: ignore[method-assign]


def block_event_loop() -> None:
    """Sleep in the event loop's thread without the GIL."""
    SimulatedEngine.hang = lambda _: time.sleep(FOREVER_S)  # type: ignore[method-assign]


KINDS: Mapping[str, Callable[[], None]] = {
    "engine": hold_in_engine_thread,
    "loop": block_event_loop,
}

if __name__ == "__main__":
    KINDS[sys.argv.pop(1)]()
    main()
