"""Runs parts of a pool in processes that answer commands.

A command is a line of JSON on standard input, and its reply is a line of JSON on standard output.
"""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from ops.bench.machine import ROOT
from ops.bench.measurement_process import MeasurementFailed
from ops.bench.server_processes import clean_environment

Handler = Callable[[dict[str, Any]], Awaitable[Any]]


class HostProcess:
    """A running process of `python -m ops.bench.scale.<module>`, seen from its parent."""

    def __init__(self, module: str, *arguments: str, log: Path) -> None:
        """Start the process. It writes its log to the file `log`."""
        self._log = log
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"ops.bench.scale.{module}", *arguments],
                cwd=ROOT,
                env=clean_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def ask(self, command: str, **arguments: Any) -> Any:
        """Send a command, and wait for its reply.

        Raises:
            MeasurementFailed: the process has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = orjson.dumps({"command": command, **arguments})
        try:
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()
            reply = self._process.stdout.readline()
        except BrokenPipeError:
            reply = b""
        if not reply:
            output = self._log.read_text(errors="replace")[-2000:]
            raise MeasurementFailed(f"a process of the measurement ended:\n{output}")
        return orjson.loads(reply)

    def __enter__(self) -> "HostProcess":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process at once. Its part of the pool needs no orderly end."""
        self._process.kill()
        self._process.communicate()


async def serve_commands(handle: Handler) -> None:
    """Pass each command to `handle` and write its reply, until standard input is closed."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        reply = await handle(orjson.loads(line))
        sys.stdout.write(orjson.dumps(reply).decode() + "\n")
        sys.stdout.flush()
