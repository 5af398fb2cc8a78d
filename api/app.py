"""Builds the FastAPI app."""

import asyncio
import os
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import Depends, FastAPI

from api.access.auth import KeyCheck
from api.access.authenticator import Authenticator
from api.access.stored_keys import StoredKeys
from api.access.web_pages import WebPages
from api.adapters.on_demand import OnDemand
from api.adapters.shadow_copies import ShadowCopies
from api.answers.tokenization import MAX_CALLS, MAX_CALLS_OF_TENANT
from api.files.upload import MAX_UPLOADS, MAX_UPLOADS_TENANT
from api.follow.cancel_queue import CancelQueue
from api.follow.presence import Presence
from api.follow.reply_hub import ReplyHub
from api.http.canonical_path import CanonicalPath
from api.http.cors import add_cors
from api.http.errors import add_error_handlers
from api.http.guards import Guards
from api.http.middleware import Boundary
from api.http.scopes import check_scope
from api.http.turns.checks import check_slots
from api.http.turns.fair_slots import FairSlots
from api.http.turns.tenant_requests import TenantRequests
from api.http.turns.turns import Turns
from api.metrics.metrics import Metrics
from api.openapi.document import describe
from api.pool_state.body import pool_body
from api.pool_state.feed import PoolFeed
from api.pool_state.state import PoolReader
from api.pools.context import Context
from api.pools.file_store import FileStore
from api.pools.model_cache import ModelCache
from api.pools.pool_status import CachedRead, pool_snapshot, readiness
from api.pools.pools import Pools, settings_of_pools
from api.routes import (
    batches,
    chat,
    completions,
    embeddings,
    files,
    health,
    job_stream,
    jobs,
    messages,
    models,
    pool,
    responses,
    server_info,
    tokenize,
)
from api.routes.access import audit_log, usage
from api.routes.adapters import adapters, candidates, lora_adapters, pins, rollouts
from api.routes.pages import console, docs
from shared.adapter_sources import SourceTemplate
from shared.api_keys import api_keys, metrics_key
from shared.protocol.enqueue import QueueLimits
from shared.protocol.ids import ApiId
from shared.settings import ApiSettings
from shared.store.access.key_store import KeyStore
from shared.store.access.ledger import Ledger
from shared.store.batches.batches import Batches
from shared.store.batches.files import StoredFiles
from shared.store.calls.tokenizations import Tokenizations
from shared.store.connection import Redis, connect
from shared.store.dead_letters import DeadLetters
from shared.store.durability import Durability
from shared.store.inspections import Inspections
from shared.store.keys import Keys
from shared.store.queue import Queue
from shared.store.registry import Registry
from shared.store.sources.lookups import SourceLookups
from shared.store.sources.progress import StagingProgress
from shared.store.token_streams import ReplyReader, read_checkpoints
from shared.store.uploads import Uploads
from shared.store.versions.candidates import Candidates
from shared.store.versions.changes import Changes
from shared.store.versions.pins import Pins
from shared.store.versions.shadows import Shadows
from shared.store.views.adapter_views import AdapterViews
from shared.store.views.pool_views import PoolViews

if TYPE_CHECKING:
    from shared.tracing.tracer import Tracer

_ROUTES = (
    *(chat, completions, responses, messages, embeddings, tokenize, models),
    *(files, batches, usage, audit_log),
    *(candidates, pins, adapters, rollouts, lora_adapters, jobs, job_stream),
    *(pool, health, server_info, docs, console),
)
MAX_INSPECTIONS = 16
"""Maximum number of concurrent inspections of adapters. Further inspections wait."""
MAX_INSPECTIONS_OF_TENANT = 8
"""Maximum number of concurrent inspections that one tenant has asked for."""
MAX_TURNS = 32
"""Maximum number of requests that are accepted at the same time. It is smaller than the number of
Redis connections, so that calls for running answers don't wait for one."""
REDIS_TIMEOUT_S = 2.0
"""Time limit of each Redis call, in seconds. If a call times out, the client gets status 503."""


def create_app(
    settings: ApiSettings,
    *,
    durability: Durability | None = None,
    tracer: "Tracer | None" = None,
    is_internal: bool = False,
) -> FastAPI:
    """Create the app of a front end. The app connects to Redis on startup.

    Args:
        settings: settings of the front end.
        durability: a request is accepted only after its job is durable in this way in Redis.
        tracer: records requests as spans.
        is_internal: whether only this process sends requests. Each of them brings its `access` in
            the state of its scope.

    Raises:
        SettingsError: the API keys are malformed, or they are missing although the server is
            reachable from the network, a pool is named twice, or the file store can't be used.
    """
    keys = () if is_internal else api_keys(settings)
    pools = settings_of_pools(settings)
    app_metrics, guards = Metrics(), Guards(routes.router for routes in _ROUTES)
    authenticator = Authenticator(
        keys,
        metrics_key(settings, keys),
        guards,
        require_keys=settings.require_keys,
        books_pool=settings.pool,
    )
    store = FileStore(settings.file_store) if settings.file_store else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        redis = connect(settings.redis_url, timeout_s=REDIS_TIMEOUT_S)
        shared = _Shared.of(settings, redis, app_metrics, tracer, store)
        contexts = [
            _context(
                of_pool, redis, Queue(redis, Keys(of_pool.pool), durability=durability), shared
            )
            for of_pool in pools
        ]
        app.state.context, app.state.pools = contexts[0], Pools(contexts)
        try:
            async with asyncio.TaskGroup() as loops:
                tasks = [
                    loops.create_task(loop.run())
                    for each in contexts
                    for loop in (each.replies, each.cancels, each.presence, each.pool_feed)
                ]
                yield
                for each in contexts:
                    each.pool_feed.stop()
                    await each.cancels.finish()
                for task in tasks:
                    task.cancel()
        finally:
            for each in contexts:
                await each.on_demand.close()
                await each.shadow_copies.close()
            await redis.aclose()

    app = FastAPI(
        title="Lorikeet",
        version=version("lorikeet-serve"),
        lifespan=lifespan,
        dependencies=[Depends(check_scope)],
        openapi_url=None,  # routes/pages/docs.py adds the names of models and serves the document
        redirect_slashes=False,  # `CanonicalPath` removes trailing slashes
    )
    for routes in _ROUTES:
        app.include_router(routes.router)
    app.add_middleware(TenantRequests, max_connections=settings.max_connections)
    web_pages = WebPages(settings.host, settings.allowed_hosts, settings.cors_origins)
    app.add_middleware(KeyCheck, authenticator=authenticator, web_pages=web_pages)
    app.add_middleware(Boundary, metrics=app_metrics)
    app.add_middleware(
        CanonicalPath, root_path=settings.root_path, pools=(settings.pool, *settings.further_pools)
    )
    add_cors(app, settings.cors_origins)
    add_error_handlers(app)
    app.state.metrics, app.state.guards = app_metrics, guards
    app.state.check_slots = check_slots()
    app.state.openapi_lock = asyncio.Lock()
    app.state.openapi = cache(partial(describe, app, settings=settings, guards=guards))
    return app


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shared:
    """Objects that the contexts of all pools share."""

    metrics: Metrics
    tracer: "Tracer | None"
    store: FileStore | None
    upload_slots: FairSlots
    ledger: Ledger
    turns: Turns
    inspection_slots: FairSlots
    call_slots: FairSlots

    @classmethod
    def of(
        cls,
        settings: ApiSettings,
        redis: Redis,
        metrics: Metrics,
        tracer: "Tracer | None",
        store: FileStore | None,
    ) -> "_Shared":
        return cls(
            metrics=metrics,
            tracer=tracer,
            store=store,
            upload_slots=FairSlots(MAX_UPLOADS, max_per_tenant=MAX_UPLOADS_TENANT),
            ledger=Ledger(redis, Keys(settings.pool)),
            turns=Turns(MAX_TURNS),
            inspection_slots=FairSlots(MAX_INSPECTIONS, max_per_tenant=MAX_INSPECTIONS_OF_TENANT),
            call_slots=FairSlots(MAX_CALLS, max_per_tenant=MAX_CALLS_OF_TENANT),
        )


def _context(settings: ApiSettings, redis: Redis, queue: Queue, shared: _Shared) -> Context:
    keys = Keys(settings.pool)
    api_id = ApiId(f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:12]}")
    registry, views = Registry(redis, keys), PoolViews(redis, keys)
    replies = ReplyHub(ReplyReader(redis, keys, api_id))
    grace_ms = int(settings.disconnect_grace_s * 1000)
    cancels = CancelQueue(queue, replies, api_id, grace_ms=grace_ms)
    pool_state = CachedRead(PoolReader(redis, keys, registry, views).read)
    body_of = partial(pool_body, pool=settings.pool, version=version("lorikeet-serve"))
    return Context(
        settings=settings,
        api_id=api_id,
        limits=QueueLimits.of(settings),
        queue=queue,
        views=views,
        registry=registry,
        models=ModelCache(registry),
        read_checkpoints=partial(read_checkpoints, redis, keys),
        replies=replies,
        cancels=cancels,
        presence=Presence(queue, replies, cancels, api_id),
        metrics=shared.metrics,
        adapter_views=AdapterViews(redis, keys),
        letters=DeadLetters(redis, keys),
        inspections=Inspections(redis, keys),
        uploads=Uploads(redis, keys),
        staging=StagingProgress(redis, keys),
        on_demand=OnDemand(SourceTemplate.of(settings.adapter_source), SourceLookups(redis, keys)),
        candidates=Candidates(redis, keys),
        pins=Pins(redis, keys),
        changes=Changes(redis, keys),
        shadows=Shadows(redis, keys),
        shadow_copies=ShadowCopies(),
        inspection_slots=shared.inspection_slots,
        tokenizations=Tokenizations(redis, keys),
        turns=shared.turns,
        call_slots=shared.call_slots,
        readiness=CachedRead(partial(readiness, registry, views)),
        pool_snapshot=CachedRead(partial(pool_snapshot, registry, views)),
        pool_state=pool_state,
        pool_body=body_of,
        pool_feed=PoolFeed(pool_state.renew, body_of),
        file_store=shared.store,
        upload_slots=shared.upload_slots,
        files=StoredFiles(redis, keys),
        batches=Batches(redis, keys),
        stored_keys=StoredKeys(KeyStore(redis, keys)),
        ledger=shared.ledger,
        tracer=shared.tracer,
    )
