"""Processes that a test starts, and that are killed at its end."""

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psutil


def is_alive(pid: int) -> bool:
    """Return whether a process runs. A zombie has ended, but its parent hasn't reaped it yet."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_until(condition: Callable[[], object]) -> None:
    """Block until a condition holds, for a minute at most."""
    end_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end_s, "the condition didn't come true"
        time.sleep(0.001)


@contextmanager
def child_processes() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Yield a function that starts a command, with the options of `Popen`; kill all at exit."""
    processes = []

    def start(command: Sequence[str], **options: Any) -> "subprocess.Popen[str]":
        process = subprocess.Popen(command, text=True, **options)
        processes.append(process)
        return process

    try:
        yield start
    finally:
        for process in processes:
            process.kill()
            process.communicate()
