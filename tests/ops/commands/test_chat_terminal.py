"""`lorikeet chat` in a terminal, with a server whose engine is simulated."""

import time
import uuid
from collections.abc import Iterator

import httpx
import pytest
from api_processes import api_process
from api_support import free_port
from simulated_workers import worker_process
from terminal import ROWS, Terminal, terminal

CTRL_C, CTRL_D = "\x03", "\x04"
pytestmark = pytest.mark.slow

LONG_NAME = "support-for-customers-in-austria"
START_TIMEOUT_S, POLL_S = 60.0, 0.05
TALL_ROWS = 200
NAMES = ["pirate", "sql", LONG_NAME]


@pytest.fixture(scope="module")
def url(redis_url: str) -> Iterator[str]:
    """URL of a front end whose worker serves `simulated` and the adapters `NAMES`."""
    pool, port = f"test-{uuid.uuid4().hex[:12]}", free_port()
    url = f"http://127.0.0.1:{port}"
    with api_process(redis_url, pool, port), worker_process(redis_url, pool, adapters=NAMES):
        end = time.monotonic() + START_TIMEOUT_S
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
    with terminal("chat", columns=columns, rows=TALL_ROWS, LORIKEET_URL=url) as running:
        running.wait_until(lambda lines: lines[-1] == "simulated>")
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


@pytest.mark.parametrize("columns", [60, 80])
def test_a_long_prompt_is_shortened(chat: Terminal) -> None:
    chat.type(f"/model {LONG_NAME}\n")
    prompt = chat.wait_until(
        lambda lines: lines[-1].startswith("support-") and lines[-1].endswith(">")
    )[-1]
    assert prompt in ("support-for-custome…>", "support-for-customers-in-…>")


@pytest.mark.parametrize("columns", [60, 80])
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
    with terminal("chat", columns=60, LORIKEET_URL=url) as chat:
        chat.wait_until(lambda lines: lines[-1] == "simulated>")
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
    assert enter(chat, "/model sql", "sql>") == ["now chatting with sql"]
    chat.type(CTRL_D)
    assert chat.exit_status() == 0


def test_no_line_of_the_help_is_wider_than_60_columns(chat: Terminal) -> None:
    lines = enter(chat, "/help", "simulated>")
    assert len(lines) == 7
    assert all(line.startswith(("/", "Ctrl-C")) for line in lines)
