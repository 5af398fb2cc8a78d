"""Control process: an arq worker that runs the tasks in `ops/control/tasks.py`, and batches.

It needs neither torch nor a GPU. Any number of control processes may run. Each task is due at fixed
times, and arq ensures that only one of the processes executes it.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import orjson
import structlog
from arq import cron
from arq.connections import ArqRedis
from arq.worker import Worker
from redis.asyncio import ConnectionPool

from ops.control.tasks import TASKS, BatchWork, ControlTask, ControlTasks
from shared.cancel_tasks import cancel_tasks
from shared.errors import RedisUnavailable
from shared.settings import ControlSettings
from shared.store.processes import Processes, ProcessKind, new_process_id
from shared.store.redis.connection import Redis, check_redis_at, connect
from shared.store.redis.keys import Keys

RETRY_S = 1.0
"""Seconds between two attempts to reach Redis while it is unavailable."""
GRACE_S = 5.0
"""Seconds after a task's own time limit until arq cancels the task."""
FINISH_S = 2.0
"""Maximum seconds at shutdown to wait until arq has recorded the end of a running cron job."""
REPORT_S = 10.0
"""Seconds between two reports that the process is alive."""
HEALTH_S = 5.0
"""Seconds between two health reports to Redis."""
POLL_S = 0.2
"""Seconds between two polls for arq jobs."""
MAX_JOBS = 64
"""Maximum number of arq jobs that the process runs at a time: tasks, turns and webhook calls.

Turns and calls have smaller limits of their own.
"""

IN_PROGRESS_S = 75
"""Seconds for which arq considers a job running after the job's process has died.

Until then, each poll finds the job again, which costs two round trips. Turns may take longer,
but arq doesn't run a turn twice.
"""

if TYPE_CHECKING:
    from ops.control.batches.webhook import Webhook

log = structlog.get_logger()


def _serialize(value: Any) -> bytes:
    """Return the JSON of a task or of its outcome. An outcome may contain an exception."""
    return orjson.dumps(value, default=repr)


class _ArqClient(ArqRedis, Redis):  # type: ignore[misc]  # arq has no types
    """arq's Redis client, with the timeouts and errors of `shared.store.redis.connection.Redis`."""

    def __init__(self, pool: ConnectionPool, queue_name: str) -> None:
        # JSON can't run code, unlike the pickles that arq writes by default.
        ArqRedis.__init__(
            self,
            pool,
            job_serializer=_serialize,
            job_deserializer=orjson.loads,
            default_queue_name=queue_name,
        )


def run_control(settings: ControlSettings) -> None:
    """Run the control tasks of a pool, and its batches, until SIGTERM or SIGINT.

    If Redis becomes unavailable after the start, the process waits until Redis is back.

    Raises:
        RedisUnavailable: no usable Redis was found at the start.
        SettingsError: `redis_url` isn't the URL of a Redis server, the file store can't be used, or
            the webhook's settings contradict each other.
    """
    asyncio.run(_serve(settings, _webhook(settings)))


def _webhook(settings: ControlSettings) -> "Webhook | None":
    if not settings.webhook_url:
        return None
    from ops.control.batches.webhook import Webhook  # imports an HTTP client

    return Webhook.of(settings)


async def _serve(settings: ControlSettings, webhook: "Webhook | None") -> None:
    await check_redis_at(settings.redis_url)
    stopping = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stopping.set)
    log.info("control_started", pool=settings.pool)
    while not stopping.is_set():
        try:
            await _run_until(stopping, settings, webhook)
        except* RedisUnavailable as group:  # the front end's app raises it in a group
            error = str(_first(group))
            log.warning("redis_away", error=error, retry_s=RETRY_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), RETRY_S)
    log.info("control_stopped")


def _first(error: BaseException) -> BaseException:
    """Return the first error in nested exception groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _run_until(
    stopping: asyncio.Event, settings: ControlSettings, webhook: "Webhook | None"
) -> None:
    """Run one arq worker until `stopping` is set, or raise RedisUnavailable."""
    keys = Keys(settings.pool)
    redis = _ArqClient(connect(settings.redis_url).connection_pool, keys.scheduler)
    try:
        async with _batch_work(settings, webhook, redis) as work, _reported(redis, keys):
            await _run_worker(stopping, _arq_worker(settings, redis, keys, work))
    finally:
        await redis.aclose(close_connection_pool=True)


@contextlib.asynccontextmanager
async def _reported(redis: Redis, keys: Keys) -> AsyncIterator[None]:
    """Until the context ends, report that the process is alive. Then report that it ends."""
    processes, process = Processes(redis, keys), new_process_id()

    async def report() -> None:
        while True:
            with contextlib.suppress(RedisUnavailable):
                await processes.report(ProcessKind.CONTROL, process)
            await asyncio.sleep(REPORT_S)

    reporting = asyncio.create_task(report())
    try:
        yield
    finally:
        await cancel_tasks(reporting)
        with contextlib.suppress(RedisUnavailable):
            await processes.end(ProcessKind.CONTROL, process)


def _batch_work(
    settings: ControlSettings, webhook: "Webhook | None", redis: _ArqClient
) -> AbstractAsyncContextManager[BatchWork]:
    if settings.file_store is None:
        return contextlib.nullcontext(BatchWork())
    from ops.control.batches.assembly import batch_work  # imports the whole front end

    return batch_work(settings, webhook, redis)


async def _run_worker(stopping: asyncio.Event, worker: Any) -> None:
    other_tasks = asyncio.all_tasks()
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
        # arq shields the task that records the end of a job from cancellation.
        if shielded := asyncio.all_tasks() - other_tasks:
            await asyncio.wait(shielded, timeout=FINISH_S)


def _arq_worker(
    settings: ControlSettings, redis: _ArqClient, keys: Keys, work: BatchWork
) -> Worker:
    tasks = [*TASKS, *work.tasks]
    worker = Worker(
        functions=work.functions,
        queue_name=keys.scheduler,
        cron_jobs=[_cron_job(task, settings.pool) for task in tasks],
        redis_pool=redis,
        job_serializer=_serialize,
        job_deserializer=orjson.loads,
        handle_signals=False,
        health_check_key=keys.control(socket.gethostname()),
        health_check_interval=HEALTH_S,
        poll_delay=POLL_S,
        max_jobs=MAX_JOBS,
        keep_result=0,
        ctx={"tasks": ControlTasks(redis, keys, settings)},
    )
    worker.in_progress_timeout_s = IN_PROGRESS_S
    return worker


def _cron_job(task: ControlTask, pool: str) -> Any:
    async def run(ctx: dict[str, Any]) -> None:
        await task.run_guarded(ctx["tasks"])

    # arq's keys don't have the pool's prefix, so the job's name separates pools in one Redis.
    name, seconds = f"{task.name}:{pool}", set(task.seconds)
    return cron(run, name=name, second=seconds, timeout=task.timeout_s + GRACE_S)
