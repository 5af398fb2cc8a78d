"""A program in a pseudo-terminal, whose screen tests can read."""

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import psutil
import pyte

ROWS = 24
DEADLINE_S = 90.0


class Terminal:
    """Runs `lorikeet WORDS` in a terminal of `columns` x `rows` characters."""

    def __init__(
        self, words: Sequence[str], *, columns: int, rows: int, env: dict[str, str]
    ) -> None:
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            _run(words, columns, rows, env)

    def close(self) -> None:
        """Kill the program if it still runs."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._fd)

    @property
    def lines(self) -> list[str]:
        """The lines on the screen, without those below the last text."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip().split("\n")

    @property
    def hides_cursor(self) -> bool:
        return bool(self._screen.cursor.hidden)

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def wait_until(self, is_shown: Callable[[list[str]], bool]) -> list[str]:
        """Wait until the screen satisfies the condition, and return its lines."""
        end = time.monotonic() + DEADLINE_S
        while not is_shown(self.lines):
            assert time.monotonic() < end, "\n".join(self.lines)
            self._read(0.05)
        return self.lines

    def wait_until_asleep(self) -> None:
        """Wait until the program has nothing to do but wait.

        Python's `input` notices a signal that arrives between two keys only with the next key.
        """
        process = psutil.Process(self._pid)
        end = time.monotonic() + DEADLINE_S
        while process.status() != psutil.STATUS_SLEEPING:
            assert time.monotonic() < end
            self._read(0.01)

    def exit_status(self) -> int:
        """Wait for the end of the program, and return its exit status."""
        while self._read(DEADLINE_S):
            pass
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        return os.waitstatus_to_exitcode(status)

    def _read(self, seconds: float) -> bool:
        """Draw what the program has written. Return False at the end of its output."""
        if not select.select([self._fd], [], [], seconds)[0]:
            return True
        try:
            written = os.read(self._fd, 65536)
        except OSError:  # the program has ended
            return False
        self._stream.feed(written)
        return bool(written)


def _run(words: Sequence[str], columns: int, rows: int, env: dict[str, str]) -> None:
    """Replace this process by the program."""
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    # A shell that starts the tests in the background makes them ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    inherited = {
        name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")
    }
    os.execve(
        sys.executable,
        [sys.executable, "-m", "ops.cli", *words],
        {**inherited, "TERM": "xterm-256color", **env},
    )


@contextmanager
def terminal(*words: str, columns: int = 80, rows: int = ROWS, **env: str) -> Iterator[Terminal]:
    """Run `lorikeet WORDS` in a terminal until the end of the block."""
    running = Terminal(words, columns=columns, rows=rows, env=env)
    try:
        yield running
    finally:
        running.close()
