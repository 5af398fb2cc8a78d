"""Faults of workers."""

import signal

from ops.chaos.cluster.commands import LEASE_MS
from ops.chaos.cluster.supervised import Supervised
from ops.chaos.faults.fault import Fault, Scene
from shared.protocol.ids import WorkerId

STALLED = "engine_stalled"
"""Event that a worker logs before it ends because its engine hangs."""
SHORTEST_LEASE_S = min(LEASE_MS.values()) / 1000


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
    hold_s = (0.2 * SHORTEST_LEASE_S, 0.5 * SHORTEST_LEASE_S)

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


class HangEngine(WorkerFault):
    """A step of the engine that never ends."""

    kind = "hang-engine"
    needs_simulation = True

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._num_stalls = self._worker.log_text().count(STALLED)

    async def inject(self) -> None:
        """Make the engine hang in its next step."""
        self._worker.signal(signal.SIGUSR1)

    async def evidence(self) -> str:
        """Return that the worker has noticed it and ended."""
        if self._end() != "exit code 1":
            return ""
        is_noticed = self._worker.log_text().count(STALLED) > self._num_stalls
        return f"{STALLED}, exit code 1" if is_noticed else ""
