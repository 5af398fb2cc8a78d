"""Jobs that are taken from a worker: it left the pool, was given up, or gives them back.

They go back to their queues behind all that the worker has shown of them. A worker that is out of
the pool can't publish any more, so reading what it has shown needn't be one step with the rest:
each call of Redis is short, and another process resumes an interrupted settlement.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import structlog

from shared.codec import decode_events, encode_events
from shared.connection import Redis, redis_errors
from shared.errors import ProtocolMismatch
from shared.events import Event, Tokens
from shared.ids import ApiId, JobId, WorkerId
from shared.keys import Keys
from shared.scripts import Arg, Scripts

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
        shown = await self._last_shown(wid)
        while ids := await self._owned(wid):
            more = await self._scripts.run("hand_on", wid, *_with_shown(ids, shown))
            if more is None:  # it is back in the pool, or somebody else has settled it
                break
            requeued, ended = requeued + more[0], ended + more[1]
        while not await self._scripts.run("forget_worker", wid):
            pass
        return requeued, ended

    async def release(self, wid: WorkerId, ids: Sequence[JobId]) -> int:
        """Take these jobs from a live worker, without blame; returns how many were its."""
        released = 0
        shown = await self._last_shown(wid)
        for first in range(0, len(ids), JOBS_AT_ONCE):
            page = ids[first : first + JOBS_AT_ONCE]
            released += await self._scripts.run("release", wid, *_with_shown(page, shown))
        return released

    async def _owned(self, wid: WorkerId) -> list[JobId]:
        with redis_errors():
            raw = await self._redis.zrange(self._keys.owned(wid), 0, JOBS_AT_ONCE - 1)
        return [JobId(each.decode()) for each in raw]

    async def _last_shown(self, wid: WorkerId) -> Mapping[JobId, Sequence[Tokens]]:
        """The tokens in the worker's last publications: all that may stand in no checkpoint."""
        with redis_errors():
            sent = await self._redis.lrange(self._keys.sent(wid), 0, -1)  # type: ignore[misc]
            pipe = self._redis.pipeline(transaction=False)
            for line in (line for lines in sent for line in lines.decode().split("\n")):
                api, _, entry = line.rpartition(" ")
                pipe.xrange(self._keys.replies(ApiId(api)), entry, entry)
            found = await pipe.execute()
        return _tokens_by_job(event for entries in found for event in _events_of(entries))


def _with_shown(ids: Iterable[JobId], shown: Mapping[JobId, Sequence[Tokens]]) -> Iterable[Arg]:
    for job_id in ids:
        yield job_id
        yield encode_events(shown[job_id]) if job_id in shown else b""


def _events_of(entries: Iterable[tuple[bytes, Mapping[bytes, Any]]]) -> Iterable[Event]:
    for entry, fields in entries:
        try:
            yield from decode_events(fields[b"e"])
        except (ProtocolMismatch, ValueError, KeyError, TypeError) as error:
            # Its tokens are computed again. One entry must not end every process that sweeps.
            log.warning("shown_unreadable", entry=entry.decode(), error=repr(error))


def _tokens_by_job(events: Iterable[Event]) -> Mapping[JobId, Sequence[Tokens]]:
    by_job: defaultdict[JobId, list[Tokens]] = defaultdict(list)
    for event in events:
        if isinstance(event, Tokens):
            by_job[event.job].append(event)
    return by_job
