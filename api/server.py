"""Runs the front end as a process."""

import asyncio
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import structlog
import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.http.connection_limits import HttpLimits
from api.http.protocol import HttpConfig
from api.metrics.metrics import Metrics
from shared.api_keys import api_keys
from shared.errors import SettingsError
from shared.settings import ApiSettings
from shared.store.connection import check_redis_at
from shared.store.durability import durability_at

DRAIN_S = 30
"""Seconds after SIGTERM or SIGINT within which running answers may finish.

After that time, the remaining connections are closed.
"""

log = structlog.get_logger()


def run_api(settings: ApiSettings) -> None:
    """Serve until SIGTERM or SIGINT. Then drain: accept no new requests and finish running answers.

    Raises:
        RedisUnavailable: Redis can't be reached.
        SettingsError: the Redis URL is invalid, the server can't listen on the port, the API keys
            are malformed, or they are missing although the server is reachable from the network.
    """
    asyncio.run(_serve(settings))


def http_config(app: FastAPI, settings: ApiSettings, *, drain_s: int = DRAIN_S) -> HttpConfig:
    """Return uvicorn's configuration for `app`, with the connection limits from `settings`."""
    metrics: Metrics = app.state.metrics
    return HttpConfig(
        app,
        limits=HttpLimits.of(settings),
        on_refused=metrics.count_refusal,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=drain_s,
    )


async def _serve(settings: ApiSettings) -> None:
    api_keys(settings)  # report malformed keys before waiting for Redis
    await check_redis_at(settings.redis_url)
    app = create_app(settings, durability=await durability_at(settings))
    listener = _listen(settings.host, settings.port)
    _raise_open_file_limit()
    config = http_config(app, settings)
    log.info("api_listening", url=_url(listener), pool=settings.pool)
    await _Server(config).serve(sockets=[listener])
    log.info("api_stopped")


def _raise_open_file_limit() -> None:
    """Raise the soft limit of open files to the hard limit.

    Every connection uses an open file, and the soft limit is often only 1,024.
    """
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS also has a lower limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise SettingsError(f"--port: can't listen on {host}:{port}: {error}") from None


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """Server that returns normally after a signal. uvicorn's own server re-raises the signal."""

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
