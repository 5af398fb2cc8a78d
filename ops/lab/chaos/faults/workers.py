"""Faults of workers."""

import signal
from typing import ClassVar

from ops.lab.chaos.cluster.commands import LEASE_MS
from ops.lab.chaos.cluster.supervised import Supervised
from ops.lab.chaos.cluster.worker_process import HOLD_GIL
from ops.lab.chaos.faults.fault import Fault, Scene
from shared.protocol.ids import WorkerId

STALLED = "engine_stalled"
"""Event that a worker logs before it ends because its engine hangs."""
HUNG = "worker_hung"
"""Text that a worker's watchdog prints before it ends the worker."""
LEASE_S = LEASE_MS / 1000


class WorkerFault(Fault):
    """A fault of one worker."""

    subject = "worker"

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._worker: Supervised = self._rng.choice(self._pool.workers)
        self.target = self._worker.name
        self._num_ends = len(self._worker.ends)

    async def has_recovered(self) -> bool:
        """Return whether the worker is registered."""
        return self._worker.is_running and await self._pool.view_of(self._worker) is not None

    def _end(self) -> str:
        """Return what ended the worker since this fault was created; empty if nothing did."""
        ends = self._worker.ends[self._num_ends :]
        return ends[0].reason if ends else ""


class KillWorker(WorkerFault):
    """SIGKILL."""

    kind = "kill-worker"

    async def inject(self) -> None:
        """Kill the worker."""
        self._worker.signal(signal.SIGKILL)

    async def evidence(self) -> str:
        """Return what ended the process."""
        return f"ended by {self._end()}" if self._end() == "SIGKILL" else ""


class PauseWorker(WorkerFault):
    """SIGSTOP for less than the lease."""

    kind = "pause-worker"
    hold_s = (0.2 * LEASE_S, 0.5 * LEASE_S)

    async def inject(self) -> None:
        """Suspend the worker."""
        self._worker.signal(signal.SIGSTOP)

    async def evidence(self) -> str:
        """Return whether the process is suspended."""
        return "suspended" if self._worker.is_suspended else ""

    async def heal(self) -> None:
        """Continue the worker."""
        self._worker.signal(signal.SIGCONT)


class LoseWorker(WorkerFault):
    """SIGSTOP until the pool has given the worker up. The worker then continues with old jobs."""

    kind = "lose-worker"

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._id: WorkerId | None = None

    async def inject(self) -> None:
        """Suspend the worker."""
        view = await self._pool.view_of(self._worker)
        self._id = view.id if view else None
        self._worker.signal(signal.SIGSTOP)

    async def evidence(self) -> str:
        """Return that the pool has given the suspended worker up."""
        ids = {view.id for view in await self._pool.views.workers()}
        is_lost = self._id is not None and self._id not in ids
        return "given up while suspended" if is_lost and self._worker.is_suspended else ""

    async def heal(self) -> None:
        """Continue the worker."""
        self._worker.signal(signal.SIGCONT)


class _Hang(WorkerFault):
    """A fault that makes a worker hang until it ends itself."""

    number: ClassVar[signal.Signals]
    """Signal that causes the fault."""
    message: ClassVar[str]
    """Text in the log that shows that the fault was noticed."""
    exit_code: ClassVar[int]

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._num_before = self._worker.log_text().count(self.message)

    async def inject(self) -> None:
        """Make the worker hang."""
        self._worker.signal(self.number)

    async def evidence(self) -> str:
        """Return that the hang was noticed and the worker has ended."""
        if self._end() != f"exit code {self.exit_code}":
            return ""
        is_noticed = self._worker.log_text().count(self.message) > self._num_before
        return f"{self.message}, exit code {self.exit_code}" if is_noticed else ""


class HangEngine(_Hang):
    """A step of the engine that never ends."""

    kind = "hang-engine"
    number = signal.SIGUSR1
    message = STALLED
    exit_code = 1


class HoldGil(_Hang):
    """Native code that holds the GIL for ever."""

    kind = "hold-gil"
    number = HOLD_GIL
    message = HUNG
    exit_code = signal.SIGUSR2
