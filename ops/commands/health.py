"""`lorikeet health`: checks that a process is alive, for use in containers and scripts."""

import asyncio
import os
import socket
from enum import StrEnum
from typing import Annotated, Any

import typer

from ops.commands.clients.client_options import URL_VARIABLE
from ops.commands.flags import read_settings, settings_flags
from ops.local.direct_http import get
from ops.local.ports import LOOPBACK
from shared.errors import LorikeetError, SettingsError
from shared.settings import ApiSettings, PoolSettings
from shared.store.redis.connection import Redis, connect
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

URL_HELP = (
    "URL of the front end to check, with `health api` only. By default that in "
    f"{URL_VARIABLE}, else LORIKEET_PORT on this machine."
)
TIMEOUT_S = 5.0


class NotAlive(LorikeetError):
    """The process doesn't answer, hasn't reported to Redis recently, or is stalled."""


class Process(StrEnum):
    """Kind of process to check."""

    API = "api"
    """Front end. It is alive if it answers /health on this machine at LORIKEET_PORT."""
    WORKER = "worker"
    """Worker. It is alive if it has a lease under this machine's host name and isn't stalled."""
    CONTROL = "control"
    """Control process. It is alive if Redis has a recent report under this machine's host name."""


@settings_flags(PoolSettings)
def health(
    process: Annotated[
        Process,
        typer.Argument(metavar="PROCESS", help="Process to check: api, worker or control."),
    ],
    url: Annotated[
        str | None, typer.Option("--url", metavar="URL", help=URL_HELP, show_default=False)
    ] = None,
    **given: Any,
) -> None:
    """Check that a front end, or this machine's worker or control process, is alive.

    If the process is alive, the command prints `alive` and exits with status 0. Otherwise it exits
    with status 1. Workers and control processes are identified by their host name. The command
    is therefore meant for containers, each of which has its own host name.
    """
    if url and process is not Process.API:
        raise SettingsError(f"--url is for `health api`; leave it out to check the {process}")
    settings = read_settings(ApiSettings, given)
    host = socket.gethostname()
    if process is Process.API:
        is_alive = _api_is_alive(settings.port, url or os.environ.get(URL_VARIABLE))
    else:
        is_alive = asyncio.run(_is_in_pool(process, settings, host))
    if not is_alive:
        raise NotAlive(f"no {process} of host {host} is alive in pool {settings.pool}; see its log")
    print("alive")


def _api_is_alive(port: int, given_url: str | None) -> bool:
    """Return whether the front end is alive. If a URL is given, raise NotAlive with the reason."""
    if not given_url:
        return get(f"http://{LOOPBACK}:{port}/health") is not None
    # Imported here because importing httpx is slow, and most calls check this machine.
    import httpx

    from ops.server_client import client_options, error_text, server_url

    url = server_url(given_url)
    try:
        reply = httpx.get(f"{url}/health", timeout=TIMEOUT_S, **client_options(url))
    except httpx.HTTPError as error:
        reason = error_text(error)
        raise NotAlive(f"no answer from {url}: {reason}; check --url and the server") from None
    if not reply.is_success:
        raise NotAlive(f"{url}/health answered with status {reply.status_code}")
    return True


async def _is_in_pool(process: Process, settings: ApiSettings, host: str) -> bool:
    keys = Keys(settings.pool)
    async with connect(settings.redis_url) as redis:
        if process is Process.WORKER:
            return await _worker_is_alive(redis, keys, host)
        return bool(await redis.exists(keys.control(host)))


async def _worker_is_alive(redis: Redis, keys: Keys, host: str) -> bool:
    workers = await PoolViews(redis, keys).workers()
    alive = [w for w in workers if w.id.startswith(f"{host}:") and w.lease_left_ms > 0]
    stalled = [w for w in alive if w.info.is_stalled]
    if stalled and len(stalled) == len(alive):
        seconds = stalled[0].info.step_ms / 1000
        raise NotAlive(f"worker {stalled[0].id} is stalled: its step takes {seconds:.0f} s so far")
    return bool(alive)
