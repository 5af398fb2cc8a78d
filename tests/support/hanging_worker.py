"""A simulated worker that hangs after SIGUSR1: `python hanging_worker.py KIND ARGUMENTS...`.

The arguments are those of `lorikeet`. The kind is a key of `KINDS`.
"""

import ctypes
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from ops.cli import main
from worker.engine_simulated.adapters import SimulatedSource
from worker.engine_simulated.engine import SimulatedEngine

FOREVER_S = 10**6


def hold_gil() -> None:
    """Sleep in a C function that doesn't release the GIL."""
    ctypes.PyDLL(None).sleep(FOREVER_S)


def hold_in_engine_thread() -> None:
    """Hold the GIL in the engine's next step."""
    step = SimulatedEngine.step

    def hanging_step(self: SimulatedEngine) -> Any:
        if self._hangs:
            hold_gil()
        return step(self)

    SimulatedEngine.step = hanging_step  # type: ignore[method-assign]


def hold_in_event_loop() -> None:
    """Hold the GIL in the handler of the signal, which runs in the event loop's thread."""
    SimulatedEngine.hang = lambda _: hold_gil()  # type: ignore[method-assign]


def hold_in_loader_thread() -> None:
    """Hold the GIL while an adapter is read."""
    SimulatedEngine.hang = lambda _: None  # type: ignore[method-assign]
    SimulatedSource.read_version = lambda *_: hold_gil()  # type: ignore[assignment,method-assign]


def block_event_loop() -> None:
    """Sleep in the event loop's thread without the GIL."""
    SimulatedEngine.hang = lambda _: time.sleep(FOREVER_S)  # type: ignore[method-assign]


KINDS: Mapping[str, Callable[[], None]] = {
    "engine": hold_in_engine_thread,
    "loop": hold_in_event_loop,
    "loader": hold_in_loader_thread,
    "loop without GIL": block_event_loop,
}

if __name__ == "__main__":
    KINDS[sys.argv.pop(1)]()
    main()
