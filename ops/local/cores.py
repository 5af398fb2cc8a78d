"""How many CPU cores there are to use."""

import os


def usable_cores() -> int:
    """Those that this process may use; all of the machine's where the system doesn't tell."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
