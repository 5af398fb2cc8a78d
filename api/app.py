"""The FastAPI app."""

import asyncio
import os
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI

from api.cached_read import Recent
from api.context import Context
from api.errors import add_error_handlers
from api.follow.cancel_queue import Cancels
from api.follow.reply_hub import Replies
from api.http.auth import KeyCheck
from api.http.middleware import Boundary
from api.metrics.metrics import Metrics
from api.openapi.document import describe
from api.pool_state import not_ready_reason, pool_snapshot
from api.routes import adapters, chat, completions, docs, health, jobs, metrics, models
from shared.api_keys import api_keys, metrics_key
from shared.protocol.ids import ApiId
from shared.protocol.limits import Limits
from shared.settings import ApiSettings
from shared.store.adapter_views import AdapterViews
from shared.store.connection import Redis, connect
from shared.store.durability import Durability
from shared.store.inspections import Inspections
from shared.store.keys import Keys
from shared.store.queue import Queue
from shared.store.registry import Registry
from shared.store.token_streams import ReplyReader, shown

MAX_INSPECTIONS = 8
"""Adapters that workers are asked to read at a time; others wait for their turn."""


def create_app(settings: ApiSettings, *, durability: Durability | None = None) -> FastAPI:
    """The front end of one pool. It connects to Redis when it is started, and waits for it.

    With a `durability`, requests are accepted only once that is durable.

    Raises:
        SettingsError: its keys are malformed, or missing where the network could reach it.
    """
    keys, app_metrics = api_keys(settings), Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        redis = connect(settings.redis_url)
        queue = Queue(redis, Keys(settings.pool), durability=durability)
        context = _context(settings, redis, queue, app_metrics, has_keys=bool(keys))
        app.state.context = context
        try:
            async with asyncio.TaskGroup() as loops:
                tasks = [
                    loops.create_task(context.replies.run()),
                    loops.create_task(context.cancels.run()),
                ]
                yield
                for task in tasks:
                    task.cancel()
        finally:
            await redis.aclose()

    app = FastAPI(
        title="Lorikeet",
        version=version("lorikeet"),
        lifespan=lifespan,
        openapi_url=None,  # routes/docs.py fills in the served names
    )
    for routes in (chat, completions, models, adapters, jobs, health, metrics, docs):
        app.include_router(routes.router)
    app.add_middleware(KeyCheck, keys=keys, metrics_key=metrics_key(settings, keys))
    app.add_middleware(Boundary, metrics=app_metrics)
    add_error_handlers(app)
    app.state.metrics = app_metrics
    app.state.openapi = describe(app, with_keys=bool(keys))
    return app


def _context(
    settings: ApiSettings, redis: Redis, queue: Queue, app_metrics: Metrics, *, has_keys: bool
) -> Context:
    keys = Keys(settings.pool)
    api_id = ApiId(f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:12]}")
    registry = Registry(redis, keys)
    return Context(
        settings=settings,
        api_id=api_id,
        limits=Limits.of(settings),
        queue=queue,
        registry=registry,
        shown=partial(shown, redis, keys),
        replies=Replies(ReplyReader(redis, keys, api_id)),
        cancels=Cancels(queue),
        metrics=app_metrics,
        adapter_views=AdapterViews(redis, keys),
        inspections=Inspections(redis, keys),
        inspecting=asyncio.Semaphore(MAX_INSPECTIONS),
        not_ready_reason=Recent(partial(not_ready_reason, registry, queue)),
        pool_snapshot=Recent(partial(pool_snapshot, queue)),
        has_keys=has_keys,
    )
