"""Runs the front end as a process."""

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import uvicorn

from api.app import create_app
from shared.connection import check_redis_at
from shared.errors import SettingsError
from shared.settings import ApiSettings

DRAIN_S = 30
"""On SIGTERM, time for running answers to end before their connections are cut."""

log = structlog.get_logger()


def run_api(settings: ApiSettings) -> None:
    """Serve until SIGTERM or SIGINT; then take no new requests and let running ones end.

    Raises:
        RedisUnavailable: Redis can't be reached.
        SettingsError: API keys are malformed or missing, the port can't be listened on, or there is
            no such Redis URL.
    """
    asyncio.run(_serve(settings))


async def _serve(settings: ApiSettings) -> None:
    app = create_app(settings)
    await check_redis_at(settings.redis_url)
    listener = _listen(settings.host, settings.port)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        ws="none",
        timeout_graceful_shutdown=DRAIN_S,
    )
    log.info("api_listening", url=_url(listener), pool=settings.pool)
    await _Server(config).serve(sockets=[listener])
    log.info("api_stopped")


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
    """Ends normally after a signal; uvicorn would raise the signal again once it has stopped."""

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
