"""Lists of jobs by filter.

Records of jobs without an answer have an index with the fields that filters need. One read of this
index finds the matching records among thousands. Other jobs are read one by one.
"""

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from shared.protocol.ids import AdapterVersion, JobId
from shared.protocol.job_filter import UNANSWERED, JobFilter, Traits
from shared.protocol.jobs import UNFINISHED, JobState
from shared.store.redis.connection import Redis, unix_ms
from shared.store.redis.keys import Keys
from shared.store.redis.pool_store import PoolStore
from shared.store.views.job_view import JobPage, JobView, view_of_record
from shared.store.views.pool_views import PoolViews

MAX_LOOKED = 2000
"""Maximum number of jobs that one call of `page` reads."""
MAX_SCANNED = 20_000
"""Maximum number of entries of the index of records that one call of `page` reads."""
CHUNK = 100
SCAN_CHUNK = 5000

_INDEXED = frozenset(UNANSWERED)


class _Entry(NamedTuple):
    """One entry of an index. Entries are sorted by time and id, newest first."""

    enqueued_ms: float
    id: JobId
    traits: Traits | None
    """Fields that filters need; None if the job must be read to learn them."""


class JobLists(PoolStore):
    """Lists the jobs of one pool."""

    def __init__(self, redis: Redis, keys: Keys, views: PoolViews) -> None:
        super().__init__(redis, keys)
        self._views = views

    async def page(
        self, wanted: JobFilter, *, limit: int, after: JobId | None = None
    ) -> JobPage | None:
        """Return up to `limit` jobs, newest first, or None if there is no job `after`.

        The page begins after the job `after` or, if that is None, with the newest job. `after` can
        be a job whose data has expired, as long as it still has a place in the lists. A page may be
        short or even empty although more jobs follow, because a call reads at most `MAX_LOOKED`
        jobs.
        """
        start = None
        if after is not None and (start := await self._place_of(wanted, after)) is None:
            return None
        found: list[JobView] = []
        num_looked = 0
        async for some in self._chunks(wanted, start):
            views = await self._read([entry for entry in some if _may_match(entry, wanted)])
            num_looked += sum(entry.traits is None for entry in some)
            found += [view for view in views if wanted.matches(_traits(view))]
            if len(found) > limit:
                jobs = found[:limit]
                return JobPage(jobs=jobs, last_id=jobs[-1].id, has_more=True)
            if num_looked >= MAX_LOOKED or not _may_match(some[-1], wanted):
                return JobPage(jobs=found, last_id=some[-1].id, has_more=True)
        return JobPage(jobs=found, last_id=found[-1].id if found else None)

    async def unanswered(self, wanted: JobFilter, *, most: int) -> tuple[Sequence[JobId], bool]:
        """Return up to `most` matching jobs that ended without an answer, and whether more follow.

        The jobs are sorted from the oldest to the newest.
        """
        low, high = await self._scores(wanted)
        found: list[JobId] = []
        first = 0
        while len(found) <= most:
            raw = await self._redis.zrangebyscore(
                self._records_of(wanted), low, high, start=first, num=SCAN_CHUNK
            )
            traits = map(_decode_member, raw)
            found += [each.id for each in traits if wanted.matches(each)]
            first += len(raw)
            if len(raw) < SCAN_CHUNK:
                break
        return found[:most], len(found) > most

    async def unfinished(self, wanted: JobFilter, *, most: int) -> tuple[Sequence[JobId], bool]:
        """Return up to `most` matching jobs that wait or run, and whether more follow."""
        low, high = await self._scores(wanted)
        if wanted.tenant is None:
            raw = await self._redis.zrange(self._keys.due, 0, -1)
        else:
            raw = await self._redis.zinter([self._keys.due, self._keys.jobs(wanted.tenant)])
        found: list[JobId] = []
        for at in range(0, len(raw), CHUNK):
            views = await self._views.read_jobs([JobId(e.decode()) for e in raw[at : at + CHUNK]])
            found += [
                view.id
                for view in views
                if view
                and view.state in UNFINISHED
                and low <= view.enqueued_ms <= high
                and wanted.matches(_traits(view))
            ]
            if len(found) > most:
                break
        return found[:most], len(found) > most

    async def _chunks(
        self, wanted: JobFilter, start: _Entry | None
    ) -> AsyncIterator[Sequence[_Entry]]:
        """Yield the entries of all indexes that may have matching jobs, newest first."""
        low, high = await self._scores(wanted)
        if wanted.error_code or (wanted.states is not None and wanted.states <= _INDEXED):
            sources = [self._records(wanted, low, high, start)]
        else:
            sources = [self._live(wanted, low, high, start)]
            if wanted.states is None or wanted.states & _INDEXED:
                sources.append(self._records(wanted, low, high, start))
        async for some in _merged(sources, wanted):
            yield some

    async def _live(
        self, wanted: JobFilter, low: float, high: float, start: _Entry | None
    ) -> AsyncIterator[_Entry]:
        """Yield the jobs whose data hasn't expired."""
        tenant = wanted.tenant
        key = self._keys.all_jobs if tenant is None else self._keys.jobs(tenant)
        async for raw, score in self._newest_first(key, low, high, start, CHUNK):
            entry = _Entry(score, JobId(raw.decode()), None)
            if start is None or _order(entry) < _order(start):
                yield entry

    async def _records(
        self, wanted: JobFilter, low: float, high: float, start: _Entry | None
    ) -> AsyncIterator[_Entry]:
        """Yield the entries of records that match.

        If the call has looked at `MAX_SCANNED` entries, the last of these is yielded even if it
        doesn't match, and no entry follows.
        """
        num_scanned = 0
        key = self._records_of(wanted)
        async for raw, score in self._newest_first(key, low, high, start, SCAN_CHUNK):
            num_scanned += 1
            traits = _decode_member(raw)
            entry = _Entry(score, traits.id, traits)
            is_last = num_scanned >= MAX_SCANNED
            if (start is None or _order(entry) < _order(start)) and (
                is_last or wanted.matches(traits)
            ):
                yield entry
            if is_last:
                return

    async def _newest_first(
        self, key: str, low: float, high: float, start: _Entry | None, size: int
    ) -> AsyncIterator[tuple[bytes, float]]:
        """Yield members and their scores, highest score first."""
        high = high if start is None else min(high, start.enqueued_ms)
        first = 0
        while True:
            page = await self._redis.zrevrangebyscore(
                key, high, low, start=first, num=size, withscores=True
            )
            for raw, score in page:
                yield raw, score
            first += len(page)
            if len(page) < size:
                return

    async def _place_of(self, wanted: JobFilter, job_id: JobId) -> _Entry | None:
        """Return the place of a job in the order of the lists, or None if it is in none of them."""
        tenant = wanted.tenant
        index = self._keys.all_jobs if tenant is None else self._keys.jobs(tenant)
        score = await self._redis.zscore(index, job_id)
        if score is not None:
            return _Entry(float(score), job_id, None)
        raw = await self._redis.get(self._keys.record(job_id))
        view = view_of_record(raw) if raw is not None else None
        if view is None or tenant not in (None, view.tenant):
            return None
        return _Entry(view.enqueued_ms, job_id, None)

    async def _read(self, entries: Sequence[_Entry]) -> list[JobView]:
        """Return those jobs of `entries` that still exist.

        A job whose data has expired is read from its record, if it has one.
        """
        found: dict[JobId, JobView] = {}
        for at in range(0, len(entries), CHUNK):
            ids = list(dict.fromkeys(entry.id for entry in entries[at : at + CHUNK]))
            views = await self._views.read_jobs(ids)
            found |= {view.id: view for view in views if view}
            missing = [each for each in ids if each not in found]
            raw = await self._redis.mget([self._keys.record(each) for each in missing or ids[:1]])
            records = [view_of_record(each) for each in raw if each is not None]
            found |= {view.id: view for view in records if view.id not in found}
        return [found[entry.id] for entry in entries if entry.id in found]

    async def _scores(self, wanted: JobFilter) -> tuple[float, float]:
        """Return the earliest and the latest time of acceptance of the wanted jobs, in ms."""
        if wanted.min_age_s is None and wanted.max_age_s is None:
            return float("-inf"), float("inf")
        now_ms = unix_ms(await self._redis.time())
        low = now_ms - 1000 * wanted.max_age_s if wanted.max_age_s is not None else float("-inf")
        return low, now_ms - 1000 * (wanted.min_age_s or 0)

    def _records_of(self, wanted: JobFilter) -> str:
        tenant = wanted.tenant
        return self._keys.unanswered if tenant is None else self._keys.unanswered_of(tenant)


async def _merged(
    sources: Sequence[AsyncIterator[_Entry]], wanted: JobFilter
) -> AsyncIterator[Sequence[_Entry]]:
    """Merge sorted sources, and yield chunks without duplicates. A job may be in two sources.

    If a source yields an entry that doesn't match, this is the last entry of the source. It is also
    the last entry of its chunk.
    """
    heads = [await anext(source, None) for source in sources]
    chunk: list[_Entry] = []
    last: JobId | None = None
    while any(heads):
        at = max(range(len(heads)), key=lambda i: _order(heads[i]))
        head, heads[at] = heads[at], await anext(sources[at], None)
        assert head is not None
        if head.id == last:
            continue
        last = head.id
        chunk.append(head)
        is_end_of_scan = head.traits is not None and not wanted.matches(head.traits)
        if len(chunk) == min(CHUNK, MAX_LOOKED) or is_end_of_scan:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _order(entry: _Entry | None) -> tuple[float, str]:
    return (entry.enqueued_ms, entry.id) if entry else (float("-inf"), "")


def _may_match(entry: _Entry, wanted: JobFilter) -> bool:
    return entry.traits is None or wanted.matches(entry.traits)


def _traits(view: JobView) -> Traits:
    code = view.error.code.value if view.error else ""
    return Traits(view.id, view.state, view.model, view.version, code)


def _decode_member(raw: bytes) -> Traits:
    job_id, state, model, version, code, _ = raw.decode().split("\t", 5)
    return Traits(JobId(job_id), JobState(state), model, AdapterVersion(version), code)
