"""Status of the pool for load balancers, Prometheus and operators, read at most once a second."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from api.metrics.pool_metrics import PoolSnapshot
from api.pool_state.feed import PoolFeed
from api.pool_state.plots import PlotReader
from api.pool_state.state import PoolState
from shared.errors import RedisUnavailable
from shared.store.adapters.registry import Registry
from shared.store.jobs.pauses import Pauses
from shared.store.views.pool_views import PoolViews

MAX_AGE_S = 1.0

T = TypeVar("T")


class CachedRead(Generic[T]):
    """Caches the result of `read` for `MAX_AGE_S` seconds. Concurrent callers share one read."""

    def __init__(self, read: Callable[[], Awaitable[T]]) -> None:
        self._read = read
        self._lock = asyncio.Lock()
        self._last: tuple[float, T] | None = None
        """Time and result of the latest read; None before the first read."""

    async def get(self) -> T:
        """Return the cached value. If it is missing or too old, call `read` first."""
        async with self._lock:
            if self._last is None or time.monotonic() - self._last[0] >= MAX_AGE_S:
                return await self._renew()
            return self._last[1]

    async def renew(self) -> T:
        """Call `read` even if the cached value is new, and cache the result."""
        async with self._lock:
            return await self._renew()

    async def _renew(self) -> T:
        value = await self._read()
        self._last = time.monotonic(), value
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether the pool accepts jobs, and whether workers compute them."""

    has_redis: bool = True
    has_base: bool = False
    num_workers: int = 0
    """Number of workers with a valid lease."""
    is_paused: bool = False
    """Whether jobs wait until a client lets the pool continue."""

    @property
    def accepts_jobs(self) -> bool:
        """Whether requests become jobs, which may have to wait for a worker."""
        return self.reason_to_refuse is None

    @property
    def reason_to_refuse(self) -> str | None:
        """Why the pool accepts no jobs, or None if it accepts them."""
        if not self.has_redis:
            return "Redis doesn't answer"
        return None if self.has_base else "no base model is registered"

    @property
    def reason_to_wait(self) -> str | None:
        """Why no job is computed at present, or None if a worker is alive."""
        return self.reason_to_refuse or (None if self.num_workers else "no worker is alive")


async def readiness(registry: Registry, views: PoolViews, pauses: Pauses) -> Readiness:
    """Return whether the pool accepts jobs and is paused, and how many workers are alive."""
    try:
        base, pause = await registry.base(), await pauses.current()
        workers = await views.workers()
    except RedisUnavailable:
        return Readiness(has_redis=False)
    num_workers = sum(worker.lease_left_ms > 0 for worker in workers)
    return Readiness(
        has_base=base is not None, num_workers=num_workers, is_paused=pause is not None
    )


async def pool_snapshot(registry: Registry, views: PoolViews) -> PoolSnapshot | None:
    """Return the state of the pool for the metrics, or None if Redis is unavailable."""
    try:
        return PoolSnapshot(
            base=await registry.base(),
            counts=await views.counts(),
            workers=await views.workers(),
            memory=await views.memory(),
            num_strays=await views.num_strays(),
        )
    except RedisUnavailable:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolReports:
    """Reports about one pool. Many clients ask for them, so reads of Redis are cached."""

    readiness: CachedRead[Readiness]
    """Whether the pool accepts jobs, and whether workers compute them."""
    snapshot: CachedRead[PoolSnapshot | None]
    """State for the metrics, or None if Redis is unavailable."""
    state: CachedRead[PoolState]
    """State for operators."""
    body_of: Callable[[PoolState], dict[str, Any]]
    """Returns the body that describes a state, without its history."""
    history: PlotReader
    """Reads the plots of the last minutes, the last hour or the last day."""
    feed: PoolFeed
    """Streams the state to clients."""
