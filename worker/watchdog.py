"""Ends a worker if its event loop or engine hangs."""

import asyncio
import ctypes
import faulthandler
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import structlog

from shared.cancel_tasks import cancel_tasks
from worker import watchdog_process

log = structlog.get_logger()


@asynccontextmanager
async def watched(limit_s: float) -> AsyncIterator[None]:
    """End this process if, inside the context, the event loop doesn't run for `limit_s` seconds.

    This includes the time in which any thread holds the GIL. Before it ends, the process prints
    the tracebacks of all threads. Its exit status is the number of SIGUSR2. Use the context once
    per process, in the main thread.
    """
    _exit_on_signal()
    beating = asyncio.create_task(_keep_beating(limit_s))
    try:
        yield
    finally:
        await cancel_tasks(beating)


def _exit_on_signal() -> None:
    """Let SIGUSR2 print all tracebacks and exit, without the GIL.

    The handler is C's `_exit` itself, because a handler in Python would wait for the GIL. SIGKILL
    alone isn't enough: in a container, the worker may have process id 1. The kernel then drops
    signals from other processes of the container, unless the worker has a handler for them.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    libc.signal(signal.SIGUSR2, ctypes.cast(libc._exit, ctypes.c_void_p))
    faulthandler.register(signal.SIGUSR2, all_threads=True, chain=True)


async def _keep_beating(limit_s: float) -> None:
    """Write a beat to a watchdog process at intervals, until cancelled.

    A watchdog process that has ended is replaced.
    """
    process = None
    try:
        while True:
            try:
                if process is None:
                    process = _start(limit_s)
                elif process.poll() is not None:
                    log.warning("watchdog_ended", exit_code=process.returncode)
                    process = _start(limit_s)
                _beat(process)
            except OSError as error:  # the system lacks memory or processes
                log.warning("watchdog_failed", error=str(error))
            await asyncio.sleep(watchdog_process.check_s(limit_s))
    finally:
        if process is not None:
            _end(process)


def _start(limit_s: float) -> "subprocess.Popen[bytes]":
    # Isolated and without site-packages, the interpreter starts in a tenth of a second.
    command = [sys.executable, "-I", "-S", watchdog_process.__file__]
    command += [str(os.getpid()), str(limit_s)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0)
    assert process.stdin is not None
    os.set_blocking(process.stdin.fileno(), False)
    return process


def _beat(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None
    # A suspended watchdog reads nothing. One that has ended is replaced before the next beat.
    with suppress(BlockingIOError, BrokenPipeError):
        process.stdin.write(b".")


def _end(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.kill()
    process.wait()


async def until_stalled(step_s: Callable[[], float], limit_s: float) -> None:
    """Wait until one step of the engine has taken `limit_s` seconds.

    Time during which this process was suspended isn't counted. Therefore a suspended machine or a
    paused container isn't mistaken for a hung engine. `step_s` returns the seconds that the current
    step has taken so far.
    """
    pause_s = watchdog_process.check_s(limit_s)
    loop = asyncio.get_running_loop()
    stalled_s, checked_s = 0.0, loop.time()
    while stalled_s < limit_s:
        await asyncio.sleep(pause_s)
        now_s = loop.time()
        elapsed_s, checked_s = min(now_s - checked_s, 2 * pause_s), now_s
        stalled_s = min(step_s(), stalled_s + elapsed_s)
