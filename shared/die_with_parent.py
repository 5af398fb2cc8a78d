"""Ends child processes together with their parent."""

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Make Linux kill the calling process when its parent ends for any reason.

    The parent is the thread that started the process. A parent passes this function to `Popen` as
    `preexec_fn`.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
