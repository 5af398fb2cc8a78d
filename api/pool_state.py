"""What is read of a pool for load balancers and for Prometheus."""

from api.metrics.pool_metrics import PoolSnapshot
from api.redis_guard import redis_guard
from shared.errors import RedisUnavailable
from shared.store.queue import Queue
from shared.store.registry import Registry


async def not_ready_reason(registry: Registry, queue: Queue) -> str | None:
    """Why no request can be served now; None if one can."""
    try:
        async with redis_guard():
            base = await registry.base()
            workers = await queue.workers()
    except RedisUnavailable:
        return "Redis doesn't answer"
    if base is None:
        return "no base model is registered"
    if not any(worker.lease_left_ms > 0 for worker in workers):
        return "no worker is alive"
    return None


async def pool_snapshot(queue: Queue) -> PoolSnapshot | None:
    """The pool's figures; None while Redis is out of reach."""
    try:
        async with redis_guard():
            return PoolSnapshot(await queue.counts(), await queue.workers(), await queue.memory())
    except RedisUnavailable:
        return None
