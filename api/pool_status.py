"""Status of the pool for load balancers and Prometheus, read at most once a second."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from api.metrics.pool_metrics import PoolSnapshot
from shared.errors import RedisUnavailable
from shared.store.registry import Registry
from shared.store.views.pool_views import PoolViews

MAX_AGE_S = 1.0

T = TypeVar("T")


class CachedRead(Generic[T]):
    """Caches the result of `read` for `MAX_AGE_S` seconds. Concurrent callers share one read."""

    def __init__(self, read: Callable[[], Awaitable[T]]) -> None:
        self._read = read
        self._lock = asyncio.Lock()
        self._last: tuple[float, T] | None = None
        """Time and result of the last read; None before the first read."""

    async def get(self) -> T:
        """Return the cached value. If it is missing or too old, call `read` first."""
        async with self._lock:
            if self._last is None or time.monotonic() - self._last[0] >= MAX_AGE_S:
                value = await self._read()
                self._last = time.monotonic(), value
            return self._last[1]


async def not_ready_reason(registry: Registry, views: PoolViews) -> str | None:
    """Return why the pool can't serve requests, or None if it can serve them."""
    try:
        base = await registry.base()
        workers = await views.workers()
    except RedisUnavailable:
        return "Redis doesn't answer"
    if base is None:
        return "no base model is registered"
    if not any(worker.lease_left_ms > 0 for worker in workers):
        return "no worker is alive"
    return None


async def pool_snapshot(registry: Registry, views: PoolViews) -> PoolSnapshot | None:
    """Return the state of the pool, or None if Redis is unavailable."""
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
