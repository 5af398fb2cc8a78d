"""Reads the whole state of the pool for its operators."""

from collections.abc import Sequence
from dataclasses import dataclass

from api.pool_state.history import History
from api.pool_state.rates import Point, Rates, current_rates
from shared.protocol.adapters import BaseModel
from shared.store.adapters.registry import Registry
from shared.store.redis.connection import Redis, unix_ms
from shared.store.redis.keys import Keys
from shared.store.views.activity import Activity, ActivityView
from shared.store.views.history import HistoryView
from shared.store.views.incidents import Incident, IncidentsView
from shared.store.views.pool_views import PoolViews, QueueCounts, WorkerView

MAX_INCIDENTS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolState:
    """State of the pool at one moment."""

    time_s: float
    """Unix time of the read by Redis' clock, as all times of the state."""
    base: BaseModel | None
    counts: QueueCounts
    workers: Sequence[WorkerView]
    activity: Activity
    rates: Rates
    points: Sequence[Point]
    """Points of the plots over the last minutes, oldest first."""
    incidents: Sequence[Incident]
    """Newest first."""


class PoolReader:
    """Reads the state of one pool."""

    def __init__(self, redis: Redis, keys: Keys, registry: Registry, views: PoolViews) -> None:
        self._redis = redis
        self._registry = registry
        self._views = views
        self._activity = ActivityView(redis, keys, views)
        self._incidents = IncidentsView(redis, keys)
        self._history = History(HistoryView(redis, keys))

    async def read(self) -> PoolState:
        """Read the state in about ten round trips.

        Raises:
            RedisUnavailable: Redis can't be reached or can't serve.
        """
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
        )
