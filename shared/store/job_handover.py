"""Jobs that are taken from a worker: it left the pool, was given up, or gives them back.

They go back to their queues behind all that the worker has shown of them. A worker that is out of
the pool can't publish any more, so reading what it has shown needn't be one step with the rest:
each call of Redis is short, and another process resumes an interrupted settlement.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import structlog

from shared.errors import ProtocolMismatch
from shared.protocol.codec import decode_events, encode_events
from shared.protocol.events import Event, Tokens
from shared.protocol.ids import ApiId, JobId, WorkerId
from shared.store.chunks import chunks
from shared.store.connection import Redis, redis_errors
from shared.store.keys import Keys
from shared.store.scripts import Arg, Scripts

JOBS_AT_ONCE = 16

log = structlog.get_logger()


class Settlement:
    """Hands the jobs of lost workers on, and takes these out of the pool's records."""

    def __init__(self, redis: Redis, keys: Keys, scripts: Scripts) -> None:
        self._redis = redis
        self._keys = keys
        self._scripts = scripts

    async def settle(self, wid: WorkerId) -> tuple[int, int]:
        """Settle one lost worker; returns how many jobs were requeued, and how many ended.

        May be repeated, and called by several processes at a time.
        """
        requeued = ended = 0
        for page in await self._pages_with_shown(wid, await self._owned(wid)):
            more = await self._scripts.run("hand_on", wid, *page)
            if more is None:  # it is back in the pool, or somebody else has settled it
                break
            requeued, ended = requeued + more[0], ended + more[1]
        while not await self._scripts.run("forget_worker", wid):
            pass
        return requeued, ended

    async def release(self, wid: WorkerId, ids: Sequence[JobId]) -> int:
        """Take these jobs from a live worker, without blame; returns how many were its."""
        released = 0
        for page in await self._pages_with_shown(wid, ids):
            released += await self._scripts.run("release", wid, *page)
        return released

    async def _owned(self, wid: WorkerId) -> list[JobId]:
        with redis_errors():
            raw = await self._redis.zrange(self._keys.owned(wid), 0, -1)
        return [JobId(each.decode()) for each in raw]

    async def _pages_with_shown(
        self, wid: WorkerId, ids: Sequence[JobId]
    ) -> Iterable[Sequence[Arg]]:
        """The jobs and what is shown of them beyond their checkpoints, as ARGV of some calls."""
        shown = await self._last_shown(wid, ids) if ids else {}
        return (
            [word for job_id in page for word in (job_id, _payload(shown.get(job_id, ())))]
            for page in chunks(ids, JOBS_AT_ONCE)
        )

    async def _last_shown(
        self, wid: WorkerId, ids: Sequence[JobId]
    ) -> Mapping[JobId, Sequence[Tokens]]:
        """The jobs' tokens in the worker's last publications: all that no checkpoint may have."""
        with redis_errors():
            sent = await self._redis.lrange(self._keys.sent(wid), 0, -1)  # type: ignore[misc]
            pipe = self._redis.pipeline(transaction=False)
            for line in (line for lines in sent for line in lines.decode().split("\n")):
                api, _, entry = line.rpartition(" ")
                pipe.xrange(self._keys.replies(ApiId(api)), entry, entry)
            found = await pipe.execute()
        # Most jobs that are given back have shown nothing: decoding is what takes long.
        named = [each.encode() for each in ids]
        entries = [
            (entry, fields[b"e"])
            for reply in found
            for entry, fields in reply
            if any(job_id in fields[b"e"] for job_id in named)
        ]
        return _tokens_by_job(event for entry, raw in entries for event in _events_of(entry, raw))


def _payload(shown: Sequence[Tokens]) -> bytes:
    return encode_events(shown) if shown else b""


def _events_of(entry: bytes, raw: bytes) -> Sequence[Event]:
    try:
        return decode_events(raw)
    except (ProtocolMismatch, ValueError, KeyError, TypeError) as error:
        # Its tokens are computed again. One entry must not end every process that sweeps.
        log.warning("shown_unreadable", entry=entry.decode(), error=repr(error))
        return ()


def _tokens_by_job(events: Iterable[Event]) -> Mapping[JobId, Sequence[Tokens]]:
    by_job: defaultdict[JobId, list[Tokens]] = defaultdict(list)
    for event in events:
        if isinstance(event, Tokens):
            by_job[event.job].append(event)
    return by_job
