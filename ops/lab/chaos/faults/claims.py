"""A fault that returns a worker's jobs to the queue without the worker's knowledge."""

import asyncio
import contextlib
import signal

from ops.lab.chaos.faults.fault import Fault, Scene
from ops.lab.chaos.network.relay import Rules
from ops.lab.chaos.polling import until
from shared.errors import LorikeetError
from shared.protocol.ids import JobId, WorkerId
from shared.store.jobs.queue import Queue

TIMES = 2
"""Number of times that the jobs are taken from the worker."""
RECLAIM_S = 1.5
"""Maximum seconds until the worker has claimed the jobs again. It is less than a lease."""
SLOW = Rules(delay_s=1.0, min_bytes=1400, only_outgoing=True)
"""Rules of the network that delay a worker's large messages: publications for many jobs.

Claims and heartbeats are smaller, so they overtake publications.
"""
IN_FLIGHT_S = 0.2
"""Seconds to wait so that a publication of the worker is on its way when its jobs are taken."""


class LoseClaims(Fault):
    """Makes a worker lose its claims, as in a failover, and claim the same jobs again.

    Tokens published under the lost claims arrive after the new claims, and must not be shown.
    All other workers are suspended meanwhile.
    """

    kind = "lose-claims"
    subject = "worker"
    needs_network = True

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._host = self._pool.hosts[0]
        self._worker, *self._others = self._pool.workers
        self._queue = Queue(self._pool.redis, self._pool.keys)
        self.target = self._worker.name
        self._num_claimed_again = 0

    async def inject(self) -> None:
        """Take the worker's jobs away `TIMES` times. The worker can claim them again in between."""
        view = await self._pool.view_of(self._worker)
        if view is None:
            return
        await self._host.apply(SLOW)
        for _ in range(TIMES):
            await asyncio.sleep(IN_FLIGHT_S)
            self._signal_others(signal.SIGSTOP)
            await self._take_jobs(view.id)
            self._signal_others(signal.SIGCONT)
            await asyncio.sleep(SLOW.delay_s)
        await self.heal()

    async def evidence(self) -> str:
        """Return a note with the number of jobs that the worker claimed again; empty if none."""
        number = self._num_claimed_again
        return f"{number} jobs claimed again by the same worker" if number else ""

    async def heal(self) -> None:
        """Continue the other workers, and make the link fast again."""
        self._signal_others(signal.SIGCONT)
        await self._host.apply(Rules())

    async def has_recovered(self) -> bool:
        """Return whether all workers are registered."""
        return all([await self._pool.view_of(each) for each in self._pool.workers])

    async def _take_jobs(self, wid: WorkerId) -> None:
        taken = await self._claims(wid)
        await self._queue.release(wid, list(taken))

        async def are_claimed_again() -> bool:
            claims = await self._claims(wid)
            again = [job for job, epoch in claims.items() if taken.get(job, epoch) != epoch]
            self._num_claimed_again = max(self._num_claimed_again, len(again))
            return bool(taken) and len(again) == len(taken)

        with contextlib.suppress(LorikeetError):  # it had no jobs, or some ended meanwhile
            await until(are_claimed_again, "the worker has its jobs again", within_s=RECLAIM_S)

    def _signal_others(self, number: signal.Signals) -> None:
        for other in self._others:
            other.signal(number)

    async def _claims(self, wid: WorkerId) -> dict[JobId, float]:
        """Return the epoch of each job that the worker owns. Each claim gives a job a new epoch."""
        entries = await self._pool.redis.zrange(self._pool.keys.owned(wid), 0, -1, withscores=True)
        return {JobId(raw.decode()): epoch for raw, epoch in entries}
