"""Settings of the whole process, made before torch is imported."""

import os
import sys

# By default, OpenMP threads spin for milliseconds after each operation, on cores that the front
# end, Redis and the worker's event loop need. This count lasts for microseconds, just longer than
# the gaps between the operations of a step. On an idle machine with 2 cores it makes no difference
# (150 tokens/s for 32 streams over 8 adapters); beside other load it does (165 instead of 104).
SPIN_COUNT = "5000"

# Time after which the event loop returns the interpreter to the engine thread, instead of 5 ms.
SWITCH_INTERVAL_S = 0.0005


def share_cores() -> None:
    """Let the engine's threads share few cores with all other threads of the machine.

    OpenMP settings in the environment take precedence. Must run before torch is imported, because
    OpenMP reads the environment once.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def use_huge_pages() -> None:
    """Let torch ask Linux for large pages when it allocates 2 MiB or more on the CPU.

    A step reads memory all over gigabytes, and finding 4 KiB pages takes longer than reading them:
    a decode step of 32 streams takes 34 ms instead of 38, and 40 instead of 47 over 8 adapters.
    The environment takes precedence. Must run before torch allocates memory.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
