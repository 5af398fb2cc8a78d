"""Lets the engine's threads and everything else on the machine get along on few cores."""

import os
import sys

# By default OpenMP's threads spin for milliseconds after each operation, on cores that the front
# end, Redis and the worker's own event loop need. Some microseconds outlast the gaps between the
# operations of a step, and no more. On an idle machine of 2 cores it makes no difference (150
# tokens/s for 32 streams over 8 adapters either way); beside other load it does (165 for 104).
SPIN_COUNT = "5000"

# The event loop gives the interpreter back to the engine thread after this long rather than 5 ms.
SWITCH_INTERVAL_S = 0.0005


def share_cores() -> None:
    """Set how long threads hold on to a core; what the environment says about OpenMP stays.

    Changes the whole process, and must run before torch is imported: OpenMP reads it once.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
