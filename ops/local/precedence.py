"""Makes Linux run a pool's processes before those of other sessions."""

import os
from contextlib import suppress
from pathlib import Path

AUTOGROUP = Path("/proc/self/autogroup")
NICE = -10
"""Nice value that gives a session nine times the CPU weight of a session with value 0."""


def take_precedence() -> None:
    """Let this session's processes run before those of other sessions, if Linux allows it.

    Linux's autogroup feature divides each core evenly between sessions, whatever the nice values of
    their processes. A background job of another session thus takes most of a core, even at nice 19,
    and each engine step waits for the thread on that core. Only privileged processes may change
    this. A session with a terminal stays as it is: it belongs to a person and outlives the pool.
    """
    if not _has_terminal():
        with suppress(OSError):  # no such feature, or not allowed
            AUTOGROUP.write_text(str(NICE))


def _has_terminal() -> bool:
    """Return whether the session has a terminal."""
    try:
        os.close(os.open(os.ctermid(), os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
