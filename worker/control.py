"""Control process: an arq worker that requeues the jobs of dead workers.

Live workers do the same, so this process matters only when no live worker is left. It needs neither
torch nor a GPU. Any number of control processes may run. The cron job is due every second, and arq
ensures that only one of the processes executes it.
"""

import asyncio
import contextlib
import signal
import socket
from typing import Any

import orjson
import structlog
from arq import cron
from arq.connections import ArqRedis
from arq.worker import Worker
from redis.asyncio import ConnectionPool

from shared.errors import RedisUnavailable
from shared.settings import ControlSettings
from shared.store.connection import Redis, check_redis_at, connect
from shared.store.keys import Keys
from shared.store.queue import Queue

RETRY_S = 1.0
"""Seconds between two attempts to reach Redis while it is unavailable."""
REAP_TIMEOUT_S = 10.0
REAP_EVERY_MS = 1000
FINISH_S = 2.0
"""Maximum seconds at shutdown to wait until arq has recorded the end of a running cron job."""
HEALTH_S = 5.0
"""Seconds between two health reports to Redis."""

log = structlog.get_logger()


class _ArqClient(ArqRedis, Redis):  # type: ignore[misc]  # arq has no types
    """arq's Redis client, with the timeouts and error types of `shared.store.connection.Redis`."""

    def __init__(self, pool: ConnectionPool, queue_name: str) -> None:
        # JSON can't run code, unlike the pickles that arq writes by default.
        ArqRedis.__init__(
            self,
            pool,
            job_serializer=orjson.dumps,
            job_deserializer=orjson.loads,
            default_queue_name=queue_name,
        )


def run_control(settings: ControlSettings) -> None:
    """Requeue the jobs of dead workers, once a second, until SIGTERM or SIGINT.

    If Redis becomes unavailable after the start, the process waits until Redis is back.

    Raises:
        RedisUnavailable: no usable Redis was found at the start.
        SettingsError: `redis_url` isn't the URL of a Redis server.
    """
    asyncio.run(_serve(settings))


async def _serve(settings: ControlSettings) -> None:
    await check_redis_at(settings.redis_url)
    stopping = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stopping.set)
    log.info("control_started", pool=settings.pool)
    while not stopping.is_set():
        try:
            await _run_until(stopping, settings)
        except RedisUnavailable as error:
            log.warning("redis_away", error=str(error), retry_s=RETRY_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), RETRY_S)
    log.info("control_stopped")


async def _run_until(stopping: asyncio.Event, settings: ControlSettings) -> None:
    """Run one arq worker until `stopping` is set.

    Raises:
        RedisUnavailable: Redis became unavailable while the arq worker ran.
    """
    other_tasks = asyncio.all_tasks()
    worker = _arq_worker(settings)
    running = asyncio.create_task(worker.async_run())
    until_stop = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({running, until_stop}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
    finally:
        # Cancelling a reap is harmless: the next one repeats it.
        tasks = [until_stop, running, *worker.tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # arq shields the task that records the end of a cron job from cancellation.
        if shielded := asyncio.all_tasks() - other_tasks:
            await asyncio.wait(shielded, timeout=FINISH_S)
        await worker.pool.aclose(close_connection_pool=True)


def _arq_worker(settings: ControlSettings) -> Any:
    keys = Keys(settings.pool)
    redis = _ArqClient(connect(settings.redis_url).connection_pool, f"{keys.prefix}arq")
    every_second = set(range(60))
    # arq's keys don't have the pool's prefix, so the job's name separates pools in one Redis.
    reap = cron(_reap, name=f"reap:{settings.pool}", second=every_second, timeout=REAP_TIMEOUT_S)
    return Worker(
        queue_name=f"{keys.prefix}arq",
        cron_jobs=[reap],
        redis_pool=redis,
        job_serializer=orjson.dumps,
        job_deserializer=orjson.loads,
        handle_signals=False,
        health_check_key=keys.control(socket.gethostname()),
        health_check_interval=HEALTH_S,
        ctx={"queue": Queue(redis, keys)},
    )


async def _reap(ctx: dict[str, Any]) -> None:
    queue: Queue = ctx["queue"]
    reaped = await queue.reap(every_ms=REAP_EVERY_MS)
    if reaped.workers:
        log.warning(
            "workers_given_up",
            workers=reaped.workers,
            requeued=reaped.requeued,
            ended=reaped.ended,
        )
