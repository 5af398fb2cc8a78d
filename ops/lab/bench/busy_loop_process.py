"""`python -m ops.lab.bench.busy_loop_process CORE PARENT`: a busy loop of lowest priority.

CORE is the core that the loop is bound to. It prints a line once it is. The loop ends with the
process PARENT, so that no loop outlives a killed measurement.
"""

import os
import sys

LOWEST_PRIORITY = 19
"""Nice value of the loop."""
ITERATIONS = 1_000_000
"""Iterations between two checks of the parent, a few hundredths of a second."""


def main() -> None:
    """Lower the priority, bind the process to its core, and loop."""
    core, parent = map(int, sys.argv[1:])
    os.nice(LOWEST_PRIORITY)
    os.sched_setaffinity(0, {core})
    print("ready", flush=True)
    while os.getppid() == parent:
        for _ in range(ITERATIONS):
            pass


if __name__ == "__main__":
    main()
