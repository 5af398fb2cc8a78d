"""`lorikeet health`: whether this machine's part of a pool is alive, for containers' checks."""

import asyncio
import socket
from enum import StrEnum
from typing import Annotated, Any

import typer

from ops.commands.flags import read_settings, settings_flags
from shared.connection import connect, redis_errors
from shared.errors import LorikeetError
from shared.keys import Keys
from shared.queue import Queue
from shared.settings import PoolSettings


class NotAlive(LorikeetError):
    """The process hasn't told Redis of itself lately."""


class Process(StrEnum):
    """What has no port to ask; a front end answers at /health."""

    WORKER = "worker"
    CONTROL = "control"


@settings_flags(PoolSettings)
def health(
    process: Annotated[Process, typer.Argument(show_default=False)],
    **given: Any,
) -> None:
    """Exit with 0 if a worker, or control, runs under this host name and tells Redis so."""
    settings = read_settings(PoolSettings, given)
    host = socket.gethostname()
    is_alive = _worker_is_alive if process is Process.WORKER else _control_is_alive
    if not asyncio.run(is_alive(settings, host)):
        raise NotAlive(f"no {process} of host {host} is alive in pool {settings.pool}")
    print("alive")


async def _worker_is_alive(settings: PoolSettings, host: str) -> bool:
    redis = connect(settings.redis_url)
    try:
        workers = await Queue(redis, Keys(settings.pool)).workers()
    finally:
        await redis.aclose()
    return any(w.id.startswith(f"{host}:") and w.lease_left_ms > 0 for w in workers)


async def _control_is_alive(settings: PoolSettings, host: str) -> bool:
    redis = connect(settings.redis_url)
    try:
        with redis_errors():
            return bool(await redis.exists(Keys(settings.pool).control(host)))
    finally:
        await redis.aclose()
