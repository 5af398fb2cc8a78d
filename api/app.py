"""Builds the FastAPI app of a front end: its routes, its middleware and its pools."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import APIRouter, Depends, FastAPI

from api.access.authenticator import Authenticator, KeyCheck
from api.access.stored_keys import StoredKeys
from api.access.web_pages import WebPages
from api.assembly import PoolLoops, ProcessParts, assembled_pool
from api.files.file_store import FileStore
from api.http.canonical_path import CanonicalPath
from api.http.cors import add_cors
from api.http.errors import add_error_handlers
from api.http.guards import Guards, check_scope
from api.http.middleware import Boundary
from api.http.turns.body_checks import check_slots
from api.http.turns.tenant_requests import TenantRequests
from api.images.fetcher import ImageFetcher
from api.metrics.metrics import Metrics
from api.openapi.document import describe
from api.pools.error_hints import add_error_hints
from api.pools.pools import Pools, settings_of_pools
from api.routes import (
    audit_log,
    base_weights,
    batches,
    completions,
    embeddings,
    files,
    generate,
    health,
    job_actions,
    jobs,
    keys,
    messages,
    models,
    pauses,
    pool,
    responses,
    scores,
    server_info,
    tinker,
    tokenize,
    usage,
    workers,
)
from api.routes.adapters import (
    adapter_pauses,
    adapters,
    candidates,
    lora_adapters,
    pins,
    quarantine,
    sglang_adapters,
    uploads,
)
from api.routes.ollama import answers as ollama_answers
from api.routes.ollama import management as ollama_management
from api.routes.ollama import models as ollama_models
from api.routes.pages import console, docs, guide
from shared.api_keys import api_keys, metrics_key
from shared.settings import ApiSettings
from shared.store.access.ledger import Ledger
from shared.store.redis.connection import connect
from shared.store.redis.durability import Durability
from shared.store.redis.keys import Keys

if TYPE_CHECKING:
    from shared.tracing.tracer import Tracer

_ROUTES = (
    *(completions, responses, messages, generate, embeddings, scores, tokenize, models, tinker),
    *(files, batches, usage, audit_log, keys),
    *(ollama_answers, ollama_models, ollama_management),
    *(
        candidates,
        pins,
        quarantine,
        adapters,
        uploads,
        lora_adapters,
        sglang_adapters,
        pauses,
        base_weights,
        adapter_pauses,
        workers,
        job_actions,
        jobs,
    ),
    *(pool, health, server_info, docs, guide, console),
)
_CHECKS = [Depends(check_scope)]
_ROUTER = APIRouter(dependencies=_CHECKS)
"""All routes. FastAPI prepares them at the first request, once for all apps of a process."""
for _routes in _ROUTES:
    _ROUTER.include_router(_routes.router)
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

    A request is accepted only once Redis stores its job as safely as `durability` demands. `tracer`
    records requests as spans. With `is_internal`, only this process makes requests, the state of
    each request's ASGI scope contains its `access`, and the app's start and end aren't incidents.

    Raises:
        SettingsError: the API keys are malformed, no key is set although the server is reachable
            from the network, a pool is named twice, or the file store can't be used.
    """
    keys = () if is_internal else api_keys(settings)
    of_pools = settings_of_pools(settings)
    app_metrics, guards = Metrics(), Guards(routes.router for routes in _ROUTES)
    authenticator = Authenticator(
        keys,
        metrics_key(settings, keys),
        guards,
        require_keys=settings.require_keys,
        books_pool=settings.pool,
    )
    store = FileStore(settings.file_store) if settings.file_store else None
    images = ImageFetcher(settings.image_private_hosts, max_body_bytes=settings.max_body_bytes)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        redis = connect(settings.redis_url, timeout_s=REDIS_TIMEOUT_S)
        ledger = Ledger(redis, Keys(settings.pool))
        process = ProcessParts(
            metrics=app_metrics,
            tracer=tracer,
            store=store,
            ledger=ledger,
            images=images,
            is_internal=is_internal,
        )
        pools = [assembled_pool(of_pool, redis, durability, process) for of_pool in of_pools]
        app.state.pools, app.state.stored_keys = Pools(pools), pools[0].part(StoredKeys)
        try:
            async with asyncio.TaskGroup() as loops:
                tasks = [
                    loops.create_task(run) for pool in pools for run in pool.part(PoolLoops).runs()
                ]
                yield
                for pool in pools:
                    await pool.part(PoolLoops).finish()
                for task in tasks:
                    task.cancel()
        finally:
            for pool in pools:
                await pool.part(PoolLoops).close()
            await redis.aclose()

    app = FastAPI(
        title="Lorikeet",
        version=version("lorikeet-serve"),
        lifespan=lifespan,
        routes=_ROUTER.routes,
        dependencies=_CHECKS,  # of routes that are added later
        openapi_url=None,  # routes/pages/docs.py adds the names of models and serves the document
        redirect_slashes=False,  # `CanonicalPath` removes trailing slashes
    )
    app.add_middleware(TenantRequests, max_connections=settings.max_connections)
    web_pages = WebPages(settings.host, settings.allowed_hosts, settings.cors_origins)
    app.add_middleware(KeyCheck, authenticator=authenticator, web_pages=web_pages)
    app.add_middleware(Boundary, count_request=app_metrics.count_request)
    app.add_middleware(
        CanonicalPath, root_path=settings.root_path, pools=(settings.pool, *settings.further_pools)
    )
    add_cors(app, settings.cors_origins)
    add_error_handlers(app)
    add_error_hints(app)
    app.state.metrics, app.state.guards = app_metrics, guards
    app.state.check_slots = check_slots()
    app.state.max_body_bytes = settings.max_body_bytes
    app.state.max_deadline_s = settings.deadline_s
    app.state.openapi_lock = asyncio.Lock()
    app.state.openapi = cache(partial(describe, app, settings=settings, guards=guards))
    return app
