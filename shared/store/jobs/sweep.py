"""Maintenance pass over a pool. Workers and control processes run it often.

A sweep removes silent workers, and ends overdue jobs and the waiting jobs of quarantined versions.
It abandons the jobs of dead front ends, and deletes expired answers and records. The rules are in
the scripts that it calls.
"""

from shared.protocol.ids import WorkerId
from shared.protocol.queue_replies import Reaped
from shared.store.jobs.job_handover import JobHandover
from shared.store.redis.scripts import Scripts

MAX_PAGES = 100
"""Maximum number of calls of each of `expire`, `end_quarantined`, `retain` and `drop_unanswered` in
one sweep."""
RETURN_MS = 60_000
"""Milliseconds that clients have to come back after their front end has stopped or died.

They get more time than after a broken connection, because they have to find another front end, and
a load balancer may first have to notice that the old one is gone.
"""


class Sweep:
    """One maintenance pass over a pool, made of short script calls."""

    def __init__(self, scripts: Scripts, handover: JobHandover) -> None:
        self._scripts = scripts
        self._handover = handover

    async def run(self, every_ms: int) -> Reaped:
        """Sweep the pool, unless another sweep started less than about `every_ms` ago."""
        reply = await self._scripts.run("reap", every_ms)
        if reply is None:
            return Reaped(workers=0, requeued=0, ended=0, expired=0)
        num_lost, *with_jobs = reply
        requeued = ended = 0
        for raw in with_jobs:
            more_requeued, more_ended = await self._handover.hand_over_all(WorkerId(raw.decode()))
            requeued, ended = requeued + more_requeued, ended + more_ended
        (expired,) = await self._repeat("expire")
        await self._scripts.run("abandon_dead", RETURN_MS)
        await self._repeat("end_quarantined")
        await self.retain()
        await self._repeat("drop_unanswered")
        return Reaped(workers=num_lost, requeued=requeued, ended=ended, expired=expired)

    async def retain(self) -> tuple[int, int]:
        """Remove expired jobs from the indexes, and delete ended jobs beyond the limit in bytes.

        Returns two values: the number of expired jobs, and the number of deleted jobs.
        """
        expired, deleted = await self._repeat("retain")
        return expired, deleted

    async def _repeat(self, script: str) -> list[int]:
        """Call a script until nothing is left to do, and add up the counts in its replies."""
        replies = []
        for _ in range(MAX_PAGES):
            *counts, is_more = await self._scripts.run(script)
            replies.append(counts)
            if not is_more:
                break
        return [sum(column) for column in zip(*replies, strict=True)]
