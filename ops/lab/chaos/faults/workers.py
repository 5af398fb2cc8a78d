"""Faults of workers."""

import signal
from typing import ClassVar

from ops.lab.chaos.cluster.commands import LEASE_MS
from ops.lab.chaos.cluster.worker_process import HOLD_GIL
from ops.lab.chaos.faults.fault import Scene
from ops.lab.chaos.faults.processes import Kill, ProcessFault, Suspend
from shared.protocol.ids import WorkerId

STALLED = "engine_stalled"
"""Event that a worker logs before it ends because its engine hangs."""
HUNG = "worker_hung"
"""Text that a worker's watchdog prints before it ends the worker."""
LEASE_S = LEASE_MS / 1000


class WorkerFault(ProcessFault):
    """A fault of one worker."""

    subject = "worker"

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene, scene.rng.choice(scene.pool.workers))

    async def has_recovered(self) -> bool:
        """Return whether the worker is registered."""
        return self._process.is_running and await self._pool.view_of(self._process) is not None


class KillWorker(WorkerFault, Kill):
    """Kills a worker with SIGKILL."""

    kind = "kill-worker"


class PauseWorker(WorkerFault, Suspend):
    """Suspends a worker for less than its lease."""

    kind = "pause-worker"
    hold_s = (0.2 * LEASE_S, 0.5 * LEASE_S)


class LoseWorker(WorkerFault, Suspend):
    """Suspends a worker until the pool has given it up. It then continues with its old jobs."""

    kind = "lose-worker"

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._id: WorkerId | None = None

    async def inject(self) -> None:
        """Suspend the worker."""
        view = await self._pool.view_of(self._process)
        self._id = view.id if view else None
        await super().inject()

    async def evidence(self) -> str:
        """Return a note if the pool has given the suspended worker up, otherwise an empty text."""
        ids = {view.id for view in await self._pool.views.workers()}
        is_lost = self._id is not None and self._id not in ids
        return "given up while suspended" if is_lost and self._process.is_suspended else ""


class _Hang(WorkerFault):
    """A fault that makes a worker hang until it ends itself."""

    number: ClassVar[signal.Signals]
    """Signal that causes the fault."""
    message: ClassVar[str]
    """Text in the worker's log that shows that the worker noticed the fault."""
    exit_code: ClassVar[int]

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._num_before = self._process.log_text().count(self.message)

    async def inject(self) -> None:
        """Make the worker hang."""
        self._process.signal(self.number)

    async def evidence(self) -> str:
        """Return a note if the worker noticed the hang and ended, otherwise an empty text."""
        if self._end() != f"exit code {self.exit_code}":
            return ""
        is_noticed = self._process.log_text().count(self.message) > self._num_before
        return f"{self.message}, exit code {self.exit_code}" if is_noticed else ""


class HangEngine(_Hang):
    """Makes a step of the engine hang forever."""

    kind = "hang-engine"
    number = signal.SIGUSR1
    message = STALLED
    exit_code = 1


class HoldGil(_Hang):
    """Makes native code hold the GIL forever."""

    kind = "hold-gil"
    number = HOLD_GIL
    message = HUNG
    exit_code = signal.SIGUSR2
