"""Runs `lorikeet` with the given arguments, in a process that hangs on the signal `HOLD_GIL`."""

import ctypes
import signal

from ops.cli import main

HOLD_GIL = signal.SIGXCPU
"""Signal after which the process holds the GIL forever. Workers don't use it otherwise."""
_FOREVER_S = 10**6


def _hold_gil(*_: object) -> None:
    ctypes.PyDLL(None).sleep(_FOREVER_S)


if __name__ == "__main__":
    signal.signal(HOLD_GIL, _hold_gil)
    main()
