"""Runs the front end as a process."""

import asyncio
import gc
import math
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

import structlog
import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.assembly import PoolLoops
from api.http.protocol import HttpConfig
from api.metrics.metrics import Metrics
from api.pools.pools import Pools
from shared.api_keys import api_keys
from shared.errors import SettingsError
from shared.event_loop import run
from shared.port_owner import cannot_listen
from shared.protocol.enqueue import MIB
from shared.settings import ApiSettings
from shared.store.redis.connection import check_redis_at, connect
from shared.store.redis.durability import durability_at
from shared.tracing.start import tracing

if TYPE_CHECKING:
    from shared.tracing.tracer import Tracer

EXIT_S = 2
"""Seconds after the drain time in which clients can still receive the ends of their answers.

After that time, the remaining connections are closed.
"""
MAX_RETAINED_SHARE = 0.5
"""Maximum share of Redis' `maxmemory` that finished jobs may use, as in `retain.lua`."""

log = structlog.get_logger()


def run_api(settings: ApiSettings) -> None:
    """Serve until SIGTERM or SIGINT. Then drain: accept no new requests and finish running answers.

    After the drain time, unfinished answers end with the error `server_stopping`. Their jobs are
    abandoned, and go on if their clients come back elsewhere.

    Raises:
        RedisUnavailable: Redis can't be reached.
        SettingsError: the Redis URL is invalid, the server can't listen on the port, the API keys
            are malformed, they are missing although the server is reachable from the network, or
            traces are wanted but OpenTelemetry isn't installed.
    """
    with tracing(settings.otlp_endpoint, service="lorikeet-api", pool=settings.pool) as tracer:
        run(_serve(settings, tracer))


def http_config(app: FastAPI, settings: ApiSettings) -> HttpConfig:
    """Return uvicorn's configuration for `app`, with the connection limits from `settings`."""
    metrics: Metrics = app.state.metrics
    return HttpConfig(
        app,
        limits=settings,
        on_refused=metrics.count_refusal,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=math.ceil(settings.drain_s) + EXIT_S,
    )


async def _serve(settings: ApiSettings, tracer: "Tracer | None") -> None:
    api_keys(settings)  # report malformed keys before waiting for Redis
    await check_redis_at(settings.redis_url)
    await warn_if_retention_is_limited(settings)
    app = create_app(settings, durability=await durability_at(settings), tracer=tracer)
    listener = _listen(settings.host, settings.port)
    _raise_open_file_limit()
    config = http_config(app, settings)
    pools = " ".join((settings.pool, *settings.further_pools))
    # The objects that exist now live as long as the process. Without `freeze`, garbage collections
    # would visit all of them, for example while a large body is checked.
    gc.collect()
    gc.freeze()
    log.info("api_listening", url=_url(listener), pool=pools)
    await _Server(config, app, drain_s=settings.drain_s).serve(sockets=[listener])
    log.info("api_stopped")


async def warn_if_retention_is_limited(settings: ApiSettings) -> None:
    """Log a warning if Redis has too little memory for finished jobs to use all of `retain_mb`.

    Raises:
        RedisUnavailable: Redis can't be reached.
        SettingsError: `redis_url` isn't the URL of a Redis server or of Sentinels.
    """
    client = connect(settings.redis_url)
    try:
        memory = await client.info("memory")
    finally:
        await client.aclose()
    max_memory_mb = int(memory.get("maxmemory", 0)) / MIB
    if max_memory_mb and settings.retain_mb > max_memory_mb * MAX_RETAINED_SHARE:
        log.warning(
            "retain_mb_limited",
            retain_mb=settings.retain_mb,
            maxmemory_mb=round(max_memory_mb),
            used_mb=round(max_memory_mb * MAX_RETAINED_SHARE),
            hint="finished jobs get at most half of Redis' maxmemory; raise it or lower retain_mb",
        )


def _raise_open_file_limit() -> None:
    """Raise the soft limit of open files, which is often only 1,024, to the hard limit."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS also has a lower limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise SettingsError(cannot_listen(host, port, error)) from None


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """Server that drains and returns after a signal. uvicorn's own server re-raises the signal."""

    def __init__(self, config: HttpConfig, app: FastAPI, *, drain_s: float) -> None:
        super().__init__(config)
        self._app = app
        self._drain_s = drain_s

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Accept no new requests, and end unfinished answers after the drain time."""
        super().handle_exit(sig, frame)
        pools: Pools | None = getattr(self._app.state, "pools", None)
        for pool in pools.all if pools else ():
            loops = pool.part(PoolLoops)
            loops.feed.stop()
            asyncio.get_running_loop().call_later(self._drain_s, loops.replies.stop)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
