"""Supervises child processes: starts, restarts and stops them in order."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from ops.local.failures import MAX_EQUAL, Failures
from shared.die_with_parent import die_with_parent
from shared.errors import LorikeetError

EXIT_REFUSED = 2
"""Exit status of a process that refuses its settings, packages, model or adapters.

The supervisor doesn't restart such a process.
"""

FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0
HEALTHY_AFTER_S = 60.0
"""Seconds that a child must run before its restart backoff is reset."""

Show = Callable[[str, str], None]
"""Function that shows a line of text about a child.

The first argument is the child's name. The second is a line of the child's output, or a message
from the supervisor.
"""


class ChildRefused(LorikeetError):
    """A child refused its settings, packages, model or adapters. Its output has shown why."""


class ChildFailed(LorikeetError):
    """A child has failed several times in the same way, so it isn't restarted again."""


async def _always(_: int) -> bool:
    return True


@dataclass(slots=True, kw_only=True)
class Child:
    """A command that is restarted whenever it ends unexpectedly."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    stop_timeout_s: float
    """Seconds after SIGTERM until a process that still runs gets SIGKILL."""
    show: Show
    first_backoff_s: float = FIRST_BACKOFF_S
    start_s: float = HEALTHY_AFTER_S
    """Seconds after which the start of a process counts as successful.

    A process that ends earlier may count as a failed start.
    """
    is_to_blame: Callable[[int], Awaitable[bool]] = _always
    """Called with the id of a process that has ended.

    Returns whether the process itself is to blame for its end, so that restarts won't help.
    """
    _process: asyncio.subprocess.Process | None = field(default=None, init=False)
    _stopped: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _failures: Failures = field(default_factory=Failures, init=False)
    _last_line: str = field(default="", init=False)

    @property
    def pid(self) -> int | None:
        """Process id of the child's current or latest process, or None before the first start."""
        return self._process.pid if self._process else None

    async def keep_running(self) -> None:
        """Run the command until `stop` is called, and restart it whenever it ends unexpectedly.

        Raises:
            ChildRefused: the process ended with `EXIT_REFUSED`.
            ChildFailed: the process failed `MAX_EQUAL` times in a row with the same exit status and
                the same last line of output.
        """
        backoff_s = self.first_backoff_s
        while not self._stopped.is_set():
            started_s = time.monotonic()
            code = await self._run_once()
            if self._stopped.is_set():
                return
            if code == EXIT_REFUSED:
                raise ChildRefused(f"{self.name} doesn't start; see its message above")
            run_s = time.monotonic() - started_s
            if run_s > HEALTHY_AFTER_S:
                backoff_s = self.first_backoff_s
            await self._count_failure(code, had_started=run_s > self.start_s)
            self.show(self.name, f"ended ({_reason(code)}), restarts in {backoff_s:g} s")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), backoff_s)
            backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)

    async def _count_failure(self, code: int, *, had_started: bool) -> None:
        """Record a failed start. Raise ChildFailed after too many equal failures in a row."""
        assert self.pid is not None
        if had_started or code < 0 or not await self.is_to_blame(self.pid):
            self._failures.forget()
        else:
            self._failures.count(code, self._last_line)
        if self._failures.is_hopeless:
            raise ChildFailed(
                f"{self.name} has failed {MAX_EQUAL} times in the same way (exit status {code}): "
                f"{self._last_line.removeprefix('lorikeet: ')}"
            )

    async def stop(self) -> None:
        """Send SIGTERM to the process, and SIGKILL if it doesn't end within `stop_timeout_s`."""
        self._stopped.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), self.stop_timeout_s)
        except TimeoutError:
            self.show(self.name, f"still running after {self.stop_timeout_s:g} s, is killed")
            self.kill()
            await process.wait()

    def kill(self) -> None:
        """Kill the process and don't restart it."""
        self._stopped.set()
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def _run_once(self) -> int:
        self._process = process = await asyncio.create_subprocess_exec(
            *self.argv,
            env=self.env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            process_group=0,  # Ctrl-C reaches only the parent, which ends the children in order
            preexec_fn=die_with_parent,
        )
        assert process.stdout is not None
        self._last_line = ""
        while line := await _read_line(process.stdout):
            text = line.decode(errors="replace").rstrip()
            self._last_line = text or self._last_line
            self.show(self.name, text)
        return await process.wait()


class Supervisor:
    """Keeps children running, and stops them group by group."""

    def __init__(self, groups: Sequence[Sequence[Child]]) -> None:
        """Create a supervisor of groups of children. Groups are stopped one after another."""
        self._groups = groups
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Make `run` stop the children, and then return. A second call kills the children."""
        if self._stop.is_set():
            for child in self._children():
                child.kill()
        self._stop.set()

    async def run(self, *alongside: Coroutine[object, object, None]) -> None:
        """Run the children and the coroutines `alongside`.

        The method runs until a child or a coroutine fails or `stop` is called. All children
        have ended when the method returns or raises.

        Raises:
            ChildRefused: a child refused its settings, model or adapters.
            ChildFailed: a child has failed several times in the same way.
            LorikeetError: one of the coroutines `alongside` raised it.
        """
        stopped = asyncio.create_task(self._stop.wait())
        others = [asyncio.create_task(work) for work in alongside]
        runs = [asyncio.create_task(child.keep_running()) for child in self._children()]
        try:
            await _until_first(stopped, [*others, *runs])
        finally:
            for task in (stopped, *others):
                task.cancel()
            for group in self._groups:
                await asyncio.gather(*(child.stop() for child in group))
            ends = await asyncio.gather(*others, *runs, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    def _children(self) -> list[Child]:
        return [child for group in self._groups for child in group]


async def _until_first(stopped: asyncio.Task[bool], tasks: Sequence[asyncio.Task[None]]) -> None:
    """Wait until `stopped` is done or one of `tasks` has failed."""
    pending: set[asyncio.Task[bool] | asyncio.Task[None]] = {stopped, *tasks}
    while not stopped.done():
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        if any(task.exception() for task in done):
            return


async def _read_line(stream: asyncio.StreamReader) -> bytes:
    """Return the next line, or a part of a very long one, or empty bytes at the end."""
    try:
        return await stream.readuntil()
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await stream.readexactly(error.consumed)


def _reason(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
