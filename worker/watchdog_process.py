"""Ends a worker that hangs: `python -I -S watchdog_process.py PID LIMIT_S`.

A worker whose threads all wait for the GIL can't end itself, so this child process watches it. The
worker writes beats to the child's stdin. The child imports only a few modules of the standard
library, so it takes only 4 MB. It ends when its worker ends.
"""

import os
import select
import signal
import sys
import time

CHECKS_PER_LIMIT = 10
"""Number of times that the worker is checked within the time limit LIMIT_S."""
MAX_CHECK_S = 1.0
"""Maximum seconds between two checks."""
LAST_WORDS_S = 1.0
"""Seconds that a hung worker has to print its tracebacks before it is killed."""
BEATS_FD = 0


def main() -> None:
    """Watch a worker until it hangs or ends. Kill it if it hangs."""
    pid, limit_s = int(sys.argv[1]), float(sys.argv[2])
    # A draining worker can hang, too. These signals reach all processes of a terminal.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if not _hangs(pid, limit_s):
        return
    print(  # noqa: T201
        f"lorikeet: worker_hung: the event loop of process {pid} hasn't run for {limit_s:g} s "
        "(--stall-s); a thread keeps it waiting, probably in native code that holds the GIL",
        file=sys.stderr,
        flush=True,
    )
    os.kill(pid, signal.SIGUSR2)
    select.select([BEATS_FD], [], [], LAST_WORDS_S)
    if os.getppid() == pid:
        os.kill(pid, signal.SIGKILL)


def check_s(limit_s: float) -> float:
    """Return the interval in seconds between two checks of an event loop or an engine.

    The worker writes beats at the same interval.
    """
    return min(MAX_CHECK_S, limit_s / CHECKS_PER_LIMIT)


def _hangs(pid: int, limit_s: float) -> bool:
    """Wait until the worker hangs or ends, and return whether it hangs.

    The worker hangs if it has written no beat for `limit_s` seconds. Time during which this process
    or the worker was suspended isn't counted.
    """
    pause_s = check_s(limit_s)
    silent_s, checked_s = 0.0, time.monotonic()
    while silent_s < limit_s:
        has_input, _, _ = select.select([BEATS_FD], [], [], pause_s)
        now_s = time.monotonic()
        elapsed_s, checked_s = min(now_s - checked_s, 2 * pause_s), now_s
        # The worker's descendants may hold the pipe open. The parent's id shows the worker's end.
        if os.getppid() != pid or (has_input and not os.read(BEATS_FD, 4096)):
            return False
        silent_s = 0.0 if has_input or _is_suspended(pid) else silent_s + elapsed_s
    return True


def _is_suspended(pid: int) -> bool:
    """Return whether a signal or a debugger has suspended a process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            stat = file.read()
    except OSError:  # the process has ended, or the system isn't Linux
        return False
    # The state follows the program's name, which is in parentheses and may contain spaces.
    return stat.rpartition(")")[2].split()[0] in "Tt"


if __name__ == "__main__":
    main()
