"""A process that doesn't run its event loop is ended, whatever its threads do."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from child_processes import is_alive

LIMIT_S = 1.0
EXIT_HUNG = int(signal.SIGUSR2)
DEADLINE_S = 30.0
PROGRAM = """
import asyncio, ctypes, sys, threading, time
from worker.watchdog import watched

def hold_gil():
    ctypes.PyDLL(None).sleep(1000)

async def main():
    async with watched({limit_s}):
        await asyncio.sleep({limit_s} / 10)
        print("watched", flush=True)
        line = await asyncio.to_thread(sys.stdin.readline)
        {hang}
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""
HANGS = {
    "a thread holds the GIL": "threading.Thread(target=hold_gil).start()",
    "the event loop holds the GIL": "hold_gil()",
    "the event loop waits without the GIL": "time.sleep(1000)",
    "the event loop computes": "exec('while True: pass')",
}
Process = subprocess.Popen[str]


@contextmanager
def watched_process(hang: str = "pass", *, prefix: tuple[str, ...] = ()) -> Iterator[Process]:
    """Run a process in a group of its own that executes `hang` after a line on stdin."""
    program = PROGRAM.format(limit_s=LIMIT_S, hang=hang)
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout.readline() == "watched\n"
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def next_line(process: Process) -> None:
    """Let the process take its next step."""
    process.stdin.write("\n")
    process.stdin.flush()


def wait_until(condition: Callable[[], object]) -> None:
    end_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def watchdog_of(process: Process) -> int:
    """Return the id of the process's watchdog, its only child; 0 if it has none."""
    return next((child.pid for child in psutil.Process(process.pid).children()), 0)


def ignores(pid: int, number: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigIgn:")]
    return bool(int(mask, 16) >> (number - 1) & 1)


@pytest.mark.parametrize("hang", HANGS.values(), ids=HANGS)
def test_a_process_whose_event_loop_stands_still_exits_and_prints_its_tracebacks(
    hang: str,
) -> None:
    with watched_process(hang) as process:
        watchdog = watchdog_of(process)
        next_line(process)
        _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == EXIT_HUNG
    assert "lorikeet: worker_hung: the event loop of process" in errors
    assert "most recent call first" in errors
    wait_until(lambda: not is_alive(watchdog))


def test_a_process_that_runs_its_event_loop_goes_on_and_takes_its_watchdog_with_it() -> None:
    with watched_process() as process:
        watchdog = watchdog_of(process)
        time.sleep(2 * LIMIT_S)  # twice the time after which it would have been ended
        next_line(process)
        next_line(process)
        _, errors = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, errors) == (0, "")
    assert not is_alive(watchdog)


def test_a_suspended_process_or_group_goes_on_afterwards() -> None:
    with watched_process() as process:
        for send in (os.kill, os.killpg):
            send(process.pid, signal.SIGSTOP)
            time.sleep(2 * LIMIT_S)  # the process must not be ended in this time
            send(process.pid, signal.SIGCONT)
            time.sleep(LIMIT_S / 2)
        next_line(process)
        next_line(process)
        _, errors = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, errors) == (0, "")


def test_the_watchdog_ends_with_a_killed_process_and_a_killed_watchdog_is_replaced() -> None:
    with watched_process() as process:
        watchdog = watchdog_of(process)
        process.kill()
        wait_until(lambda: not is_alive(watchdog))
    with watched_process(HANGS["the event loop holds the GIL"]) as process:
        first = watchdog_of(process)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: watchdog_of(process) not in (0, first))
        next_line(process)
        log, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == EXIT_HUNG
    assert "watchdog_ended" in log


def test_a_drain_signal_to_all_processes_of_a_terminal_leaves_the_watchdog() -> None:
    with watched_process(HANGS["the event loop holds the GIL"]) as process:
        watchdog = watchdog_of(process)
        for number in (signal.SIGINT, signal.SIGTERM):
            wait_until(lambda ignored=number: ignores(watchdog, ignored))
            os.kill(watchdog, number)
        next_line(process)
        log, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == EXIT_HUNG
    assert "watchdog_ended" not in log


def test_the_first_process_of_a_container_is_ended() -> None:
    prefix = ("unshare", "--map-root-user", "--pid", "--fork", "--mount-proc")
    with watched_process(HANGS["a thread holds the GIL"], prefix=prefix) as process:
        next_line(process)
        _, errors = process.communicate(timeout=DEADLINE_S)
    assert "the event loop of process 1 hasn't run" in errors
    assert process.returncode == EXIT_HUNG
