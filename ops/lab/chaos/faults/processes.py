"""Faults that any process of the pool can have: it is killed, or suspended for a while."""

import signal

from ops.lab.chaos.cluster.supervised import Supervised
from ops.lab.chaos.faults.fault import Fault, Scene


class ProcessFault(Fault):
    """A fault of one process."""

    def __init__(self, scene: Scene, process: Supervised) -> None:
        super().__init__(scene)
        self._process = process
        self.target = process.name
        self._num_ends = len(process.ends)

    def _end(self) -> str:
        """Return why the process ended, if it has ended since this fault was created.

        Otherwise, return an empty text.
        """
        ends = self._process.ends[self._num_ends :]
        return ends[0].reason if ends else ""


class Kill(ProcessFault):
    """Kills the process with SIGKILL."""

    async def inject(self) -> None:
        """Kill the process."""
        self._process.signal(signal.SIGKILL)

    async def evidence(self) -> str:
        """Return why the process ended; empty if it didn't end."""
        return f"ended by {self._end()}" if self._end() == "SIGKILL" else ""


class Suspend(ProcessFault):
    """Suspends the process with SIGSTOP, and later continues it with SIGCONT."""

    async def inject(self) -> None:
        """Suspend the process."""
        self._process.signal(signal.SIGSTOP)

    async def evidence(self) -> str:
        """Return a note if the process is suspended, otherwise an empty text."""
        return "suspended" if self._process.is_suspended else ""

    async def heal(self) -> None:
        """Continue the process."""
        self._process.signal(signal.SIGCONT)
