"""Runs a busy loop of lowest priority on one core during a measurement.

    python -m ops.lab.bench.busy_loop CORE PARENT

The program prints a line once it is bound to CORE. It ends when the process PARENT ends, so that
no loop outlives a killed measurement.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ops.lab.bench.frame.measurement_process import MeasurementFailed
from ops.lab.bench.streams.window import cpu_s
from ops.lab.machine import ROOT

LOWEST_PRIORITY = 19
"""Nice value of the loop."""
ITERATIONS = 1_000_000
"""Number of iterations between two checks whether the parent runs.

The iterations take a few hundredths of a second.
"""


@dataclass(frozen=True, slots=True)
class BusyLoop:
    """A running busy loop."""

    pid: int

    def cpu_s(self) -> float:
        """Return the CPU time of the loop so far in seconds."""
        return cpu_s([self.pid])


@contextmanager
def busy_loop(core: int, *, own_session: bool) -> Iterator[BusyLoop]:
    """Keep `core` busy at nice 19 until the block ends or raises.

    Args:
        core: core that the loop is bound to.
        own_session: whether the loop runs in a session of its own, as programs of other terminals
            and services do. Otherwise it belongs to the session of the caller.

    Raises:
        MeasurementFailed: the loop didn't start, or the loop ended before the block did.
    """
    command = [sys.executable, "-m", __name__, str(core), str(os.getpid())]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=own_session,
        # Ctrl-C then reaches only the caller, which ends the loop. A new session has a new group.
        process_group=None if own_session else 0,
    ) as started:
        try:
            if not (started.stdout and started.stdout.readline()):
                raise MeasurementFailed(f"the busy loop didn't start on core {core}")
            yield BusyLoop(started.pid)
            if started.poll() is not None:
                raise MeasurementFailed(f"the busy loop ended early, with {started.returncode}")
        finally:
            started.kill()
            started.wait()  # after Ctrl-C, Popen itself would wait for only a quarter of a second


def main() -> None:
    """Lower this process's priority, bind it to its core, and loop."""
    core, parent = map(int, sys.argv[1:])
    os.nice(LOWEST_PRIORITY)
    os.sched_setaffinity(0, {core})
    print("ready", flush=True)
    while os.getppid() == parent:
        for _ in range(ITERATIONS):
            pass


if __name__ == "__main__":
    main()
