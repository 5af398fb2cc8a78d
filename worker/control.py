"""The control process: an arq worker that gives up dead workers when nobody else is left to do it.

Workers reap as well, API processes don't. This one needs neither torch nor a GPU, and any number of
them may run: the cron job is unique, so each second one of them does it.
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

from shared.errors import RedisUnavailable
from shared.settings import ControlSettings
from shared.store.connection import check_redis_at, connect, redis_errors
from shared.store.keys import Keys
from shared.store.queue import Queue

RETRY_S = 1.0
REAP_TIMEOUT_S = 10.0
REAP_EVERY_MS = 1000
FINISH_S = 2.0
HEALTH_S = 5.0
"""How often it tells Redis that it is alive."""

log = structlog.get_logger()


def run_control(settings: ControlSettings) -> None:
    """Reap each second until SIGTERM or SIGINT; waits for Redis when that goes away later.

    Raises:
        RedisUnavailable: there is no usable Redis at the start.
        SettingsError: `redis_url` isn't the URL of a Redis.
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
    """Run one arq worker until it is time to stop, or until Redis goes away."""
    others = asyncio.all_tasks()
    worker = _arq_worker(settings)
    running = asyncio.create_task(worker.async_run())
    told_to_stop = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({running, told_to_stop}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            with redis_errors():
                running.result()
    finally:
        # A reap that is cut off here is repeated within a second.
        tasks = [told_to_stop, running, *worker.tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # arq shields the end of a job from being cancelled.
        if shielded := asyncio.all_tasks() - others:
            await asyncio.wait(shielded, timeout=FINISH_S)
        await worker.pool.aclose(close_connection_pool=True)


def _arq_worker(settings: ControlSettings) -> Any:
    keys = Keys(settings.pool)
    # Our client has time limits on every wait, arq's own has none; and JSON can't run code.
    redis = ArqRedis(
        connect(settings.redis_url).connection_pool,
        job_serializer=orjson.dumps,
        job_deserializer=orjson.loads,
        default_queue_name=f"{keys.prefix}arq",
    )
    every_second = set(range(60))
    # arq's own keys aren't the pool's, so its name keeps two pools in one Redis apart.
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
