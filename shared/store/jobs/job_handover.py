"""Takes jobs from a worker that has left the pool, was declared dead, or releases the jobs.

The jobs return to their queues, together with every token that the worker has published. A worker
that is no longer in the pool can't publish. Therefore its publications can be read in several short
calls, and another process can continue an interrupted handover. `give_back.lua` decides which jobs
end instead.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import structlog

from shared.errors import ProtocolMismatch
from shared.protocol.codec import decode_events, encode_events
from shared.protocol.events import Event, Tokens
from shared.protocol.ids import JobId, WorkerId
from shared.store.redis.connection import chunks
from shared.store.redis.pool_store import PoolStore
from shared.store.redis.scripts import Arg

JOBS_PER_CALL = 16

log = structlog.get_logger()


class JobHandover(PoolStore):
    """Puts a worker's jobs back into the queues, with the tokens that the worker has published."""

    async def hand_over_all(self, wid: WorkerId) -> tuple[int, int]:
        """Take all jobs from a worker that is no longer in the pool, and delete its records.

        Returns the number of requeued jobs and the number of ended jobs. The call may be repeated,
        even by several processes at the same time.
        """
        requeued = ended = 0
        for page in await self._pages(wid, await self._owned(wid)):
            more = await self._scripts.run("hand_over", wid, *page)
            if more is None:  # the worker is back in the pool, or another process finished
                break
            requeued, ended = requeued + more[0], ended + more[1]
        while not await self._scripts.run("forget_worker", wid):
            pass
        return requeued, ended

    async def release(self, wid: WorkerId, ids: Sequence[JobId]) -> int:
        """Take jobs from a live worker, and return how many of them it owned.

        The release isn't counted as a failure of the jobs.
        """
        released = 0
        for page in await self._pages(wid, ids):
            released += await self._scripts.run("release", wid, *page)
        return released

    async def _owned(self, wid: WorkerId) -> list[JobId]:
        raw = await self._redis.zrange(self._keys.owned(wid), 0, -1)
        return [JobId(each.decode()) for each in raw]

    async def _pages(self, wid: WorkerId, ids: Sequence[JobId]) -> Iterable[Sequence[Arg]]:
        """Return the arguments of each script call: job ids, each with the job's latest tokens."""
        published = await self._last_published(wid, ids) if ids else {}
        payloads = {each: encode_events(published[each]) for each in ids if each in published}
        return (
            [arg for job_id in page for arg in (job_id, payloads.get(job_id, b""))]
            for page in chunks(ids, JOBS_PER_CALL)
        )

    async def _last_published(
        self, wid: WorkerId, ids: Sequence[JobId]
    ) -> Mapping[JobId, Sequence[Tokens]]:
        """Return the tokens in the worker's latest publications, by job.

        Tokens that are already in the checkpoints are included, too.
        """
        sent = await self._redis.lrange(self._keys.sent(wid), 0, -1)  # type: ignore[misc]
        payloads = [line for lines in sent for line in lines.split(b"\n")]
        # Decoding is slow, and most released jobs have published nothing.
        named = [each.encode() for each in ids]
        relevant = [raw for raw in payloads if any(job_id in raw for job_id in named)]
        return _tokens_by_job(event for raw in relevant for event in _events_of(wid, raw))


def _events_of(wid: WorkerId, raw: bytes) -> Sequence[Event]:
    try:
        return decode_events(raw)
    except (ProtocolMismatch, ValueError, KeyError, TypeError) as error:
        # One unreadable publication must not stop all sweeps. Its tokens are computed again.
        log.warning("shown_unreadable", worker=wid, error=repr(error))
        return ()


def _tokens_by_job(events: Iterable[Event]) -> Mapping[JobId, Sequence[Tokens]]:
    by_job: defaultdict[JobId, list[Tokens]] = defaultdict(list)
    for event in events:
        if isinstance(event, Tokens):
            by_job[event.job].append(event)
    return by_job
