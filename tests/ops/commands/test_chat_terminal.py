"""`lorikeet chat` in a terminal, with a server whose engine is simulated."""

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import psutil
import pyte
import pytest
from api_processes import api_process
from simulated_workers import worker_process

from ops.local.ports import free_port

CTRL_C, CTRL_D = "\x03", "\x04"
pytestmark = pytest.mark.slow

LONG_NAME = "support-for-customers-in-austria"
DEADLINE_S, POLL_S = 90.0, 0.05
ROWS, TALL_ROWS = 24, 200
NAMES = ["pirate", "sql", LONG_NAME]


class Terminal:
    """Runs `lorikeet chat` in a pseudo-terminal of `columns` x `rows` characters."""

    def __init__(self, url: str, columns: int, rows: int) -> None:
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            _run(url, columns, rows)

    def close(self) -> None:
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


def _run(url: str, columns: int, rows: int) -> None:
    """Replace this process by the program."""
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    # A shell that starts the tests in the background makes them ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    inherited = {
        name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")
    }
    command = [sys.executable, "-m", "ops.cli", "chat"]
    os.execve(command[0], command, {**inherited, "TERM": "xterm-256color", "LORIKEET_URL": url})


@contextmanager
def terminal(url: str, columns: int, rows: int = ROWS) -> Iterator[Terminal]:
    """Run the chat until the end of the block, from its first prompt on."""
    running = Terminal(url, columns, rows)
    try:
        running.wait_until(lambda lines: lines[-1] == "simulated>")
        yield running
    finally:
        running.close()


@pytest.fixture(scope="module")
def url(redis_url: str) -> Iterator[str]:
    """URL of a front end whose worker serves `simulated` and the adapters `NAMES`."""
    pool, port = f"test-{uuid.uuid4().hex[:12]}", free_port()
    url = f"http://127.0.0.1:{port}"
    with api_process(redis_url, pool, port), worker_process(redis_url, pool, adapters=NAMES):
        end = time.monotonic() + DEADLINE_S
        while not _serves_all(url):
            assert time.monotonic() < end
            time.sleep(POLL_S)
        yield url


def _serves_all(url: str) -> bool:
    try:
        models = httpx.get(f"{url}/v1/models").json()["data"]
    except httpx.TransportError:
        return False
    return len(models) == 1 + len(NAMES)


@pytest.fixture
def columns() -> int:
    return 60


@pytest.fixture
def chat(columns: int, url: str) -> Iterator[Terminal]:
    """The chat at its first prompt, in a terminal of `columns` that holds whole answers."""
    with terminal(url, columns, TALL_ROWS) as running:
        yield running


def enter(chat: Terminal, line: str, prompt: str) -> list[str]:
    """Type a line, wait until the next prompt, and return the lines between both prompts."""
    typed = f"> {line}"
    chat.type(f"{line}\n")

    def is_answered(lines: list[str]) -> bool:
        return lines[-1] == prompt and any(typed in shown for shown in lines)

    lines = chat.wait_until(is_answered)
    start = max(index for index, shown in enumerate(lines) if typed in shown)
    return lines[start + 1 : -1]


def start_answer(chat: Terminal, num_lines: int = 1) -> None:
    """Send a prompt and wait until an answer, or each of several, has this number of lines."""
    chat.type("hello\n")
    chat.wait_until(lambda lines: len(answer_lines(lines)) >= num_lines)


def answer_lines(lines: list[str]) -> list[str]:
    """The lines of the running answer or answers: those of hexadecimal digits, such as 001a2b3c."""
    return [line for line in lines if line and set(line) <= set(" 0123456789abcdef")]


@pytest.mark.parametrize("columns", [60, pytest.param(80, marks=pytest.mark.long)])
def test_a_long_prompt_is_shortened(chat: Terminal) -> None:
    chat.type(f"/model {LONG_NAME}\n")
    prompt = chat.wait_until(
        lambda lines: lines[-1].startswith("support-") and lines[-1].endswith(">")
    )[-1]
    assert prompt in ("support-for-custome…>", "support-for-customers-in-…>")


@pytest.mark.parametrize("columns", [60, pytest.param(80, marks=pytest.mark.long)])
def test_ctrl_c_stops_a_comparison_and_leaves_one_frame(chat: Terminal) -> None:
    enter(chat, "/compare simulated pirate", "simulated + pirate>")
    start_answer(chat)
    chat.type(CTRL_C)
    lines = chat.wait_until(
        lambda lines: "(stopped)" in lines and lines[-1] == "simulated + pirate>"
    )
    (start,) = (index for index, line in enumerate(lines) if line.endswith("> hello"))
    shown = [line for line in lines[start + 1 :] if line]
    assert shown[0].split() == ["simulated", "pirate"]
    assert set(shown[1].strip()) == {"─"}
    answers = answer_lines(shown)
    assert shown[2:] == [*answers, "(stopped)", "simulated + pirate>"]
    assert not chat.hides_cursor


def test_a_comparison_that_is_taller_than_the_screen_shows_its_newest_lines(url: str) -> None:
    # Simulated answers end at random, so the first ones may be too short.
    attempts = (stopped_comparison(url) for _ in range(10))
    lines = next(lines for lines in attempts if lines[-2] == "(stopped)")
    assert len(answer_lines(lines)) == len(lines) - 3  # also an empty line above (stopped)


def stopped_comparison(url: str) -> list[str]:
    """Stop a comparison that fills the screen and still moves, or let a shorter one end.

    Returns the screen.
    """
    prompt = "simulated + pirate>"
    with terminal(url, 60) as chat:
        enter(chat, "/compare simulated pirate", prompt)
        chat.type("hello\n")
        chat.wait_until(lambda lines: lines[-1] != prompt)
        before = chat.wait_until(
            lambda lines: len(answer_lines(lines)) >= ROWS - 2 or lines[-1] == prompt
        )
        if before[-1] == prompt:
            return before
        moved = chat.wait_until(lambda lines: lines != before)
        if moved[-1] == prompt:
            return moved
        chat.type(CTRL_C)
        return chat.wait_until(lambda lines: lines[-1] == prompt)


def test_answers_that_are_too_narrow_as_columns_are_shown_below_each_other(
    chat: Terminal,
) -> None:
    enter(chat, "/compare simulated pirate sql", "simulated + pirate …>")
    start_answer(chat)
    lines = chat.wait_until(lambda lines: "sql:" in lines)
    assert [line for line in lines if line.endswith(":")] == ["simulated:", "pirate:", "sql:"]


def test_ctrl_c_at_the_prompt_discards_the_line(chat: Terminal) -> None:
    chat.type("half a line")
    chat.wait_until(lambda lines: lines[-1] == "simulated> half a line")
    chat.wait_until_asleep()
    chat.type(CTRL_C)
    lines = chat.wait_until(lambda lines: lines[-1] == "simulated>")
    assert lines[-2:] == ["simulated> half a line", "simulated>"]
    assert enter(chat, "/model sql", "sql>") == ["a new conversation with sql"]
    chat.type(CTRL_D)
    assert chat.exit_status() == 0


def test_no_line_of_the_help_is_wider_than_60_columns(chat: Terminal) -> None:
    lines = enter(chat, "/help", "simulated>")
    assert len(lines) == 8
    assert all(line.startswith(("/", "Ctrl-C", "Tab")) for line in lines)
