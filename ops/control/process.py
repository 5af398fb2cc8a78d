"""Control process: an arq worker that runs the tasks in `ops/control/tasks.py`.

It needs neither torch nor a GPU. Any number of control processes may run. Each task is due at fixed
times, and arq ensures that only one of the processes executes it.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import orjson
import structlog
from arq import cron
from arq.connections import ArqRedis
from arq.worker import Worker
from redis.asyncio import ConnectionPool

from ops.control.tasks import TASKS, ControlTask, ControlTasks
from shared.errors import RedisUnavailable
from shared.settings import ControlSettings
from shared.store.connection import Redis, check_redis_at, connect
from shared.store.keys import Keys

RETRY_S = 1.0
"""Seconds between two attempts to reach Redis while it is unavailable."""
GRACE_S = 5.0
"""Seconds after its own time limit at which arq cancels a task."""
FINISH_S = 2.0
"""Maximum seconds at shutdown to wait until arq has recorded the end of a running cron job."""
HEALTH_S = 5.0
"""Seconds between two health reports to Redis."""

MoreTasks = Callable[[], AbstractAsyncContextManager[Sequence[ControlTask]]]
"""Function that provides further tasks of a control process while Redis is available."""

log = structlog.get_logger()


@contextlib.asynccontextmanager
async def no_more_tasks() -> AsyncIterator[Sequence[ControlTask]]:
    """Provide no further tasks."""
    yield ()


def _serialize(value: Any) -> bytes:
    """Return the JSON of a task or of its outcome, which may contain an exception."""
    return orjson.dumps(value, default=repr)


class _ArqClient(ArqRedis, Redis):  # type: ignore[misc]  # arq has no types
    """arq's Redis client, with the timeouts and error types of `shared.store.connection.Redis`."""

    def __init__(self, pool: ConnectionPool, queue_name: str) -> None:
        # JSON can't run code, unlike the pickles that arq writes by default.
        ArqRedis.__init__(
            self,
            pool,
            job_serializer=_serialize,
            job_deserializer=orjson.loads,
            default_queue_name=queue_name,
        )


def run_control(settings: ControlSettings, more_tasks: MoreTasks = no_more_tasks) -> None:
    """Run the control tasks of a pool until SIGTERM or SIGINT.

    If Redis becomes unavailable after the start, the process waits until Redis is back, and then
    calls `more_tasks` again.

    Raises:
        RedisUnavailable: no usable Redis was found at the start.
        SettingsError: `redis_url` isn't the URL of a Redis server.
    """
    asyncio.run(_serve(settings, more_tasks))


async def _serve(settings: ControlSettings, more_tasks: MoreTasks) -> None:
    await check_redis_at(settings.redis_url)
    stopping = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stopping.set)
    log.info("control_started", pool=settings.pool)
    while not stopping.is_set():
        try:
            async with more_tasks() as more:
                await _run_until(stopping, settings, [*TASKS, *more])
        except RedisUnavailable as error:
            log.warning("redis_away", error=str(error), retry_s=RETRY_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), RETRY_S)
    log.info("control_stopped")


async def _run_until(
    stopping: asyncio.Event, settings: ControlSettings, tasks: Sequence[ControlTask]
) -> None:
    """Run one arq worker until `stopping` is set.

    Raises:
        RedisUnavailable: Redis became unavailable while the arq worker ran.
    """
    other_tasks = asyncio.all_tasks()
    worker = _arq_worker(settings, tasks)
    running = asyncio.create_task(worker.async_run())
    until_stop = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({running, until_stop}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
    finally:
        # Cancelling a task is harmless, because the next run repeats it.
        started = [until_stop, running, *worker.tasks.values()]
        for task in started:
            task.cancel()
        await asyncio.gather(*started, return_exceptions=True)
        # arq shields the task that records the end of a cron job from cancellation.
        if shielded := asyncio.all_tasks() - other_tasks:
            await asyncio.wait(shielded, timeout=FINISH_S)
        await worker.pool.aclose(close_connection_pool=True)


def _arq_worker(settings: ControlSettings, tasks: Sequence[ControlTask]) -> Any:
    keys = Keys(settings.pool)
    redis = _ArqClient(connect(settings.redis_url).connection_pool, keys.scheduler)
    return Worker(
        queue_name=keys.scheduler,
        cron_jobs=[_cron_job(task, settings.pool) for task in tasks],
        redis_pool=redis,
        job_serializer=_serialize,
        job_deserializer=orjson.loads,
        handle_signals=False,
        health_check_key=keys.control(socket.gethostname()),
        health_check_interval=HEALTH_S,
        ctx={"tasks": ControlTasks(redis, keys, settings)},
    )


def _cron_job(task: ControlTask, pool: str) -> Any:
    async def run(ctx: dict[str, Any]) -> None:
        await task.run_guarded(ctx["tasks"])

    # arq's keys don't have the pool's prefix, so the job's name separates pools in one Redis.
    name, seconds = f"{task.name}:{pool}", set(task.seconds)
    return cron(run, name=name, second=seconds, timeout=task.timeout_s + GRACE_S)
