"""Reads the state of the pool for its operators, and keeps its recent history in memory."""

from collections.abc import Sequence
from dataclasses import dataclass

from api.pool_state.rates import Point, Rates, current_rates, points
from shared.protocol.adapters import BaseModel
from shared.store.adapters.registry import Registry
from shared.store.audit.running_audit import RunningAudit
from shared.store.jobs.pauses import Pause, Pauses
from shared.store.redis.connection import Redis, unix_ms
from shared.store.redis.keys import Keys
from shared.store.views.activity import Activity, ActivityView
from shared.store.views.history import MAX_SAMPLES, HistoryView, Sample
from shared.store.views.incidents import Incident, IncidentsView
from shared.store.views.pool_views import PoolViews, QueueCounts, WorkerView

NEW_SAMPLES = 30
"""Number of samples that a read asks for first. A reader that is up to date needs one or two."""


class History:
    """The samples of the last minutes, and the points of the plots computed from them."""

    def __init__(self, view: HistoryView) -> None:
        self._view = view
        self.samples: list[Sample] = []
        """Samples, oldest first."""
        self.points: list[Point] = []
        """One point for each sample."""

    async def update(self) -> None:
        """Read the samples that are new since the last call."""
        newest = await self._view.newest(NEW_SAMPLES)
        known_ms = self.samples[-1].time_ms if self.samples else 0
        if not newest or newest[0].time_ms > known_ms or newest[-1].time_ms < known_ms:
            # There is a gap, Redis lost samples, or its clock was set back.
            self.samples = list(await self._view.newest(MAX_SAMPLES))
            self.points = points(self.samples, range(len(self.samples)))
        else:
            self._append([sample for sample in newest if sample.time_ms > known_ms])

    def _append(self, samples: Sequence[Sample]) -> None:
        first = len(self.samples)
        self.samples += samples
        # The lists are new each time, because callers keep those of an earlier update.
        self.points = [*self.points, *points(self.samples, range(first, len(self.samples)))]
        self.samples, self.points = self.samples[-MAX_SAMPLES:], self.points[-MAX_SAMPLES:]


MAX_INCIDENTS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolState:
    """State of the pool at one moment."""

    time_s: float
    """Unix time of the read. Redis' clock measures all times of the state."""
    base: BaseModel | None
    counts: QueueCounts
    workers: Sequence[WorkerView]
    activity: Activity
    rates: Rates
    points: Sequence[Point]
    """Points of the plots over the last minutes, oldest first."""
    incidents: Sequence[Incident]
    """Incidents of the pool, newest first."""
    num_strays: int = 0
    """Number of keys with neither an owner nor a lifetime that the running audit has found."""
    pause: Pause | None = None
    """Pause that hasn't ended; None if jobs are given to workers."""


class PoolReader:
    """Reads the state of one pool."""

    def __init__(self, redis: Redis, keys: Keys, registry: Registry, views: PoolViews) -> None:
        self._redis = redis
        self._registry = registry
        self._views = views
        self._activity = ActivityView(redis, keys, views)
        self._incidents = IncidentsView(redis, keys)
        self._pauses = Pauses(redis, keys)
        self._audit = RunningAudit(redis, keys)
        self._history = History(HistoryView(redis, keys))

    async def read(self) -> PoolState:
        """Read the state in about ten round trips.

        Raises:
            RedisUnavailable: Redis can't be reached or can't serve.
        """
        audit = await self._audit.status()
        base, workers = await self._registry.base(), await self._views.workers()
        active = {version for worker in workers for version in worker.info.running_by_version}
        activity = await self._activity.read(base.version if base else None, active)
        await self._history.update()
        now_s = unix_ms(await self._redis.time()) / 1000
        return PoolState(
            time_s=now_s,
            base=base,
            counts=await self._views.counts(),
            workers=workers,
            activity=activity,
            rates=current_rates(self._history.samples, now_s),
            points=self._history.points,
            incidents=await self._incidents.newest(MAX_INCIDENTS),
            num_strays=len(audit.strays) if audit else 0,
            pause=await self._pauses.current(),
        )
