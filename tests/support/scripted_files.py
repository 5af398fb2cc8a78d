"""Files of scripted adapters, which a test can block or slow down."""

import os
import threading
import time

from scripted_engine import read_scripted_adapter

from worker.engine_simulated.adapters import SimulatedAdapter

LOAD_S = 0.4


class Files:
    """Reads scripted adapters, and records their names and the reading threads.

    The adapters in `slow` take LOAD_S. The adapter `faulty` raises an unexpected error.
    """

    def __init__(self) -> None:
        self.read: list[str] = []
        self.threads: list[tuple[str, int]] = []
        self.slow: set[str] = set()
        self.may_read = threading.Event()
        self.may_read.set()

    def __call__(self, name: str, source: str) -> SimulatedAdapter:
        self.read.append(name)
        niceness = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        self.threads.append((threading.current_thread().name, niceness))
        assert self.may_read.wait(60)
        if name == "faulty":
            raise RuntimeError("scripted to fail")
        if name in self.slow:
            time.sleep(LOAD_S)
        return read_scripted_adapter(name, source)
