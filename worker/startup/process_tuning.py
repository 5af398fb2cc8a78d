"""Sets process-wide options. They must be set before torch is imported."""

import os
import sys

# By default, OpenMP threads spin for milliseconds after each operation, on cores that the front
# end, Redis and the worker's event loop need. This count lasts for microseconds, just longer than
# the gaps between the operations of a step. Measured with 2 cores, 32 streams and 8 adapters: no
# difference on an idle machine (150 tokens/s), but 165 instead of 104 tokens/s under other load.
SPIN_COUNT = "5000"

# Time after which the event loop must hand the GIL to the engine thread. The default is 5 ms.
SWITCH_INTERVAL_S = 0.0005


def share_cores() -> None:
    """Let the engine's threads share a few cores with all other threads of the machine.

    OpenMP settings in the environment take precedence. Must run before torch is imported, because
    OpenMP reads the environment only once, when torch loads it.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def use_huge_pages() -> None:
    """Let torch ask Linux for large pages when it allocates 2 MiB or more on the CPU.

    A step reads memory scattered over gigabytes. With 4 KiB pages, translating the addresses takes
    longer than reading the data. With large pages, a decode step of 32 streams takes 34 ms instead
    of 38 ms. With 8 adapters, the step takes 40 ms instead of 47 ms. A value of
    THP_MEM_ALLOC_ENABLE in the environment takes precedence. Must run before torch allocates
    memory.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
