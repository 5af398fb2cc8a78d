"""Assembles the part of a control process that runs batches."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from arq.connections import ArqRedis

from api.app import create_app
from api.files.file_store import FileStore
from ops.control.batches.answers import ANSWERING
from ops.control.batches.file_sweep import FileSweep
from ops.control.batches.parts import Parts, Window
from ops.control.batches.turns import BatchTurns
from ops.control.batches.webhook import Announcements, Webhook
from ops.control.tasks import EVERY_10_S, EVERY_SECOND, BatchWork, ControlTask
from shared.settings import ApiSettings, ControlSettings, load_settings
from shared.store.batches.batch_ends import BatchEnds
from shared.store.batches.batches import Batches
from shared.store.batches.files import StoredFiles
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import connect
from shared.store.redis.durability import durability_at
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

MAX_DEADLINE_S = 8 * 86_400
"""Maximum seconds that a batch's request may take. The batch's completion window ends earlier."""
DAY_S = 86_400


@asynccontextmanager
async def batch_work(
    settings: ControlSettings, webhook: Webhook | None, arq: ArqRedis
) -> AsyncIterator[BatchWork]:
    """Provide the tasks and arq functions that run batches. `settings` must have a file store.

    Raises:
        SettingsError: the file store can't be used.
        RedisUnavailable: Redis can't be reached.
    """
    assert settings.file_store
    app_settings = _internal(settings)
    app = create_app(app_settings, durability=await durability_at(app_settings), is_internal=True)
    keys = Keys(settings.pool)
    async with app.router.lifespan_context(app), connect(settings.redis_url) as redis:
        parts = Parts(
            app=app,
            answering=ANSWERING,
            store=FileStore(settings.file_store),
            files=StoredFiles(redis, keys),
            batches=Batches(redis, keys),
            queue=Queue(redis, keys),
            window=Window(PoolViews(redis, keys)),
            checks=asyncio.Lock(),
            keep_s=settings.file_days * DAY_S,
            announces=webhook is not None,
            max_line_bytes=app_settings.max_body_bytes,
        )
        sweep = FileSweep(parts.store, parts.files, parts.batches, keep_s=parts.keep_s)
        announcements = Announcements(webhook, BatchEnds(redis, keys), arq) if webhook else None
        yield _work(BatchTurns(parts, arq), sweep, announcements)


def _work(turns: BatchTurns, sweep: FileSweep, announcements: Announcements | None) -> BatchWork:
    tasks = [
        ControlTask("start_batches", lambda _: turns.start(), EVERY_SECOND, 10),
        ControlTask("sweep_files", lambda _: sweep.run(time.time()), EVERY_10_S, 60),
    ]
    functions = [turns.function()]
    if announcements:
        tasks.append(ControlTask("call_webhook", lambda _: announcements.start(), EVERY_SECOND, 10))
        functions.append(announcements.function())
    return BatchWork(tasks, functions)


def _internal(settings: ControlSettings) -> ApiSettings:
    """Return the settings of the app that answers requests. Limits come from the environment."""
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
