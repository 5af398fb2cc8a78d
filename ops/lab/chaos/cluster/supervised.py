"""A process that is started again whenever it ends, as Compose does with a container."""

import asyncio
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from shared.die_with_parent import die_with_parent

RESTART_DELAY_S = 0.5
STOP_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class ProcessEnd:
    """One end of a supervised process, with its time and reason."""

    process: str
    """Name of the supervised command."""
    at_s: float
    """Time of the end, on the monotonic clock."""
    code: int
    """Exit status, or the negative number of the signal that ended the process."""

    @property
    def reason(self) -> str:
        """Signal or exit status that ended the process, such as `SIGKILL` or `exit code 1`."""
        return signal.Signals(-self.code).name if self.code < 0 else f"exit code {self.code}"


class Supervised:
    """A command that runs until `stop` is called."""

    def __init__(
        self, name: str, argv: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> None:
        self.name = name
        self.log = log
        self.ends: list[ProcessEnd] = []
        """Ends of the command's processes, except the one that `stop` caused."""
        self._argv = argv
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._is_stopping = False

    @property
    def pid(self) -> int:
        """Process id of the current or latest process, or 0 before the first start."""
        return self._process.pid if self._process else 0

    @property
    def is_running(self) -> bool:
        """Whether a process runs, or is suspended."""
        return self._process is not None and self._process.returncode is None

    @property
    def is_suspended(self) -> bool:
        """Whether SIGSTOP has suspended the process."""
        return is_suspended(self.pid)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process. Does nothing if the process has ended."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def log_text(self) -> str:
        """Return everything that the command's processes have printed."""
        return self.log.read_text(errors="replace")

    async def keep_running(self) -> None:
        """Run the command, and start it again whenever it ends, until `stop` is called."""
        while not self._is_stopping:
            await self._start()
            assert self._process is not None
            code = await self._process.wait()
            if not self._is_stopping:
                self.ends.append(ProcessEnd(self.name, time.monotonic(), code))
                await asyncio.sleep(RESTART_DELAY_S)

    async def stop(self) -> None:
        """Send SIGTERM to the process, and SIGKILL if it is still running after a timeout."""
        self._is_stopping = True
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        if self._process is None:
            return
        try:
            await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self._process.wait()

    async def _start(self) -> None:
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,  # Ctrl-C reaches only the parent, which ends its children
                preexec_fn=die_with_parent,
            )


def is_suspended(pid: int) -> bool:
    """Return whether SIGSTOP has suspended a process of this machine."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    # The state follows the program's name, which is in parentheses and may contain spaces.
    return stat.rpartition(")")[2].split()[0] == "T"
