"""Runs the open batches of a pool. Each batch runs in one control process at a time."""

import asyncio
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from api.app import create_app
from api.files.store import FileStore
from ops.control.batches.run import BatchRun, Parts
from shared.errors import JobFailed, LeaseLost, RedisUnavailable
from shared.settings import ApiSettings, ControlSettings, load_settings
from shared.store.batches.batch_ends import BatchEnds
from shared.store.batches.batches import Batches
from shared.store.batches.files import StoredFiles
from shared.store.batches.records import BatchId
from shared.store.connection import connect
from shared.store.durability import durability_at
from shared.store.keys import Keys
from shared.store.queue import Queue
from shared.store.views.pool_views import PoolViews

MAX_RUNNING = 8
"""Maximum number of batches that one control process runs at the same time."""
MIN_WINDOW = 4
MAX_WINDOW = 1024
WAITING_SHARE = 0.25
"""Requests of batches that wait, as a share of the sequences that the pool computes at a time."""
MAX_DEADLINE_S = 8 * 86_400
"""Seconds that a request of a batch may take. The batch's completion window ends earlier."""
DAY_S = 86_400

log = structlog.get_logger()


class BatchSupervisor:
    """Starts a run of every open batch that no other control process runs."""

    def __init__(self, parts: Parts, views: PoolViews, ends: BatchEnds) -> None:
        self.ends = ends
        self._parts = parts
        self._views = views
        self._runs: dict[BatchId, asyncio.Task[None]] = {}
        self._window = MIN_WINDOW

    async def start_runs(self) -> None:
        """Start a run of each open batch without one, and measure the pool."""
        for batch_id in await self._parts.batches.open():
            if len(self._runs) >= MAX_RUNNING:
                break
            if batch_id not in self._runs:
                await self._start(batch_id)
        if self._runs:
            workers = await self._views.workers()
            slots = sum(worker.info.max_num_seqs for worker in workers)
            self._window = min(MAX_WINDOW, round(slots * (1 + WAITING_SHARE)))

    def window(self) -> int:
        """Return how many requests of each batch should run or wait."""
        return max(MIN_WINDOW, self._window // max(1, len(self._runs)))

    async def stop(self) -> None:
        """Stop all runs. Other control processes can go on at once."""
        for task in self._runs.values():
            task.cancel()
        await asyncio.gather(*self._runs.values(), return_exceptions=True)

    async def _start(self, batch_id: BatchId) -> None:
        batches, runner = self._parts.batches, self._parts.runner
        if await batches.lease(batch_id, runner):
            task = asyncio.create_task(self._run(batch_id))
            self._runs[batch_id] = task
            task.add_done_callback(lambda _: self._runs.pop(batch_id))

    async def _run(self, batch_id: BatchId) -> None:
        """Run a batch, and log why it stops early. Another call of `start_runs` continues it."""
        batches, runner = self._parts.batches, self._parts.runner
        try:
            if batch := await batches.get(batch_id):
                log.info("batch_runs", batch_id=batch_id, status=batch.status.value)
                await BatchRun(self._parts, batch).run()
        except LeaseLost as error:
            log.warning("batch_lost", batch_id=batch_id, error=str(error))
        except (RedisUnavailable, JobFailed) as error:
            log.warning("batch_interrupted", batch_id=batch_id, error=str(error))
        except asyncio.CancelledError:
            await batches.release(batch_id, runner)
            raise
        except Exception:
            log.exception("batch_interrupted", batch_id=batch_id)


@asynccontextmanager
async def batch_supervisor(settings: ControlSettings) -> AsyncIterator[BatchSupervisor]:
    """Provide a supervisor of a pool's batches. `settings` must have a file store.

    Raises:
        SettingsError: the file store can't be used.
        RedisUnavailable: Redis can't be reached.
    """
    assert settings.file_store
    store = FileStore(settings.file_store)
    app_settings = _internal(settings)
    app = create_app(app_settings, durability=await durability_at(app_settings), is_internal=True)
    redis, keys = connect(settings.redis_url), Keys(settings.pool)
    async with app.router.lifespan_context(app):
        parts = Parts(
            app=app,
            store=store,
            files=StoredFiles(redis, keys),
            batches=Batches(redis, keys),
            queue=Queue(redis, keys),
            runner=f"{socket.gethostname()}:{uuid.uuid4().hex[:12]}",
            keep_s=settings.file_days * DAY_S,
            announces=bool(settings.webhook_url),
            max_line_bytes=app_settings.max_body_bytes,
            window=lambda: supervisor.window(),
        )
        supervisor = BatchSupervisor(parts, PoolViews(redis, keys), BatchEnds(redis, keys))
        try:
            yield supervisor
        finally:
            await supervisor.stop()
            await redis.aclose()


def _internal(settings: ControlSettings) -> ApiSettings:
    """Return settings of the app that answers the requests of batches.

    Its limits are those of the environment, like those of a front end without flags.
    """
    return load_settings(
        ApiSettings,
        redis_url=settings.redis_url,
        pool=settings.pool,
        further_pools=(),
        durability=settings.durability,
        file_store=settings.file_store,
        file_days=settings.file_days,
        deadline_s=MAX_DEADLINE_S,
        retain_s=DAY_S,
    )
