"""`lorikeet health`: checks that a process on this machine is alive, for use in containers."""

import asyncio
import socket
from enum import StrEnum
from typing import Annotated, Any

import typer

from ops.commands.flags import read_settings, settings_flags
from ops.local.direct_http import get
from ops.local.ports import LOOPBACK
from shared.errors import LorikeetError
from shared.settings import ApiSettings, PoolSettings
from shared.store.connection import Redis, connect
from shared.store.keys import Keys
from shared.store.views.pool_views import PoolViews


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
    process: Annotated[Process, typer.Argument(metavar="PROCESS", help="Process to check.")],
    **given: Any,
) -> None:
    """Check that the front end, worker or control process on this machine is alive.

    If the process is alive, the command prints `alive` and exits with status 0. Otherwise it exits
    with status 1. Workers and control processes are identified by their host name. The command
    is therefore meant for containers, each of which has its own host name.
    """
    settings = read_settings(ApiSettings, given)
    host = socket.gethostname()
    if process is Process.API:
        is_alive = _api_is_alive(settings.port)
    else:
        is_alive = asyncio.run(_is_in_pool(process, settings, host))
    if not is_alive:
        raise NotAlive(f"no {process} of host {host} is alive in pool {settings.pool}; see its log")
    print("alive")


def _api_is_alive(port: int) -> bool:
    return get(f"http://{LOOPBACK}:{port}/health") is not None


async def _is_in_pool(process: Process, settings: ApiSettings, host: str) -> bool:
    redis, keys = connect(settings.redis_url), Keys(settings.pool)
    try:
        if process is Process.WORKER:
            return await _worker_is_alive(redis, keys, host)
        return bool(await redis.exists(keys.control(host)))
    finally:
        await redis.aclose()


async def _worker_is_alive(redis: Redis, keys: Keys, host: str) -> bool:
    workers = await PoolViews(redis, keys).workers()
    alive = [w for w in workers if w.id.startswith(f"{host}:") and w.lease_left_ms > 0]
    stalled = [w for w in alive if w.info.is_stalled]
    if stalled and len(stalled) == len(alive):
        seconds = stalled[0].info.step_ms / 1000
        raise NotAlive(f"worker {stalled[0].id} is stalled: its step takes {seconds:.0f} s so far")
    return bool(alive)
