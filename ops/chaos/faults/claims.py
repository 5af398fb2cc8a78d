"""A fault of claims: a worker's jobs return to the queue without its knowledge."""

import contextlib
import signal

from ops.chaos.faults.fault import Fault, Scene
from ops.chaos.network.relay import Rules
from ops.chaos.polling import until
from shared.errors import LorikeetError
from shared.protocol.ids import JobId, WorkerId
from shared.store.queue import Queue

TIMES = 3
"""Number of times that the jobs are taken. Together they last less than a lease."""
RECLAIM_S = 2.0
"""Longest time until the worker has claimed the jobs again."""
SLOW = Rules(delay_s=0.02, jitter_s=0.12)
"""Publications that are on their way may arrive after the worker's next claim."""


class LoseClaims(Fault):
    """A worker's claims are lost, as by a failover, and the same worker claims the jobs again.

    What it still publishes under the lost claims must not be shown. The worker's link is slow, and
    all other workers are suspended meanwhile.
    """

    kind = "lose-claims"
    subject = "worker"
    needs_network = True
    needs_simulation = True

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._host = self._pool.hosts[0]
        self._worker, *self._others = self._pool.workers
        self._queue = Queue(self._pool.redis, self._pool.keys)
        self.target = self._worker.name
        self._num_claimed_again = 0

    async def inject(self) -> None:
        """Take the worker's jobs several times, each time once it has claimed some again."""
        view = await self._pool.view_of(self._worker)
        if view is None:
            return
        await self._host.apply(SLOW)
        for other in self._others:
            other.signal(signal.SIGSTOP)
        for _ in range(TIMES):
            await self._take_jobs(view.id)
        await self.heal()

    async def evidence(self) -> str:
        """Return how many jobs the worker claimed twice."""
        number = self._num_claimed_again
        return f"{number} jobs claimed again by the same worker" if number else ""

    async def heal(self) -> None:
        """Continue the other workers, and make the link fast again."""
        for other in self._others:
            other.signal(signal.SIGCONT)
        await self._host.apply(Rules())

    async def has_recovered(self) -> bool:
        """Return whether all workers are registered."""
        return all([await self._pool.view_of(each) for each in self._pool.workers])

    async def _take_jobs(self, wid: WorkerId) -> None:
        taken = await self._claims(wid)
        await self._queue.release(wid, list(taken))

        async def claimed_again() -> int:
            claims = await self._claims(wid)
            return sum(job in taken and taken[job] != epoch for job, epoch in claims.items())

        with contextlib.suppress(LorikeetError):  # it had no jobs, or newer ones came first
            self._num_claimed_again += await until(
                claimed_again, "the worker claims its jobs again", within_s=RECLAIM_S
            )

    async def _claims(self, wid: WorkerId) -> dict[JobId, float]:
        """Return the epoch of each job that the worker owns."""
        entries = await self._pool.redis.zrange(self._pool.keys.owned(wid), 0, -1, withscores=True)
        return {JobId(raw.decode()): epoch for raw, epoch in entries}
