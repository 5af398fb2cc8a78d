"""`lorikeet health`: whether this machine's part of a pool is alive, for containers' checks."""

import asyncio
import socket
from enum import StrEnum
from http.client import HTTPException
from typing import Annotated, Any
from urllib.request import ProxyHandler, build_opener

import typer

from ops.commands.flags import read_settings, settings_flags
from shared.errors import LorikeetError
from shared.settings import ApiSettings, PoolSettings
from shared.store.connection import Redis, connect, redis_errors
from shared.store.keys import Keys
from shared.store.queue import Queue

TIMEOUT_S = 5.0


class NotAlive(LorikeetError):
    """The process doesn't answer, or hasn't told Redis of itself lately."""


class Process(StrEnum):
    """What can be asked for."""

    API = "api"
    """Answers at /health, on this machine and LORIKEET_PORT."""
    WORKER = "worker"
    """Holds a lease in the pool, under this machine's host name, and its engine gets on."""
    CONTROL = "control"
    """Tells Redis every few seconds that it works, under this machine's host name."""


@settings_flags(PoolSettings)
def health(process: Annotated[Process, typer.Argument(show_default=False)], **given: Any) -> None:
    """Exit with 0 if this machine's front end, worker or control process is alive.

    For health checks of containers, which have a host name each.
    """
    settings = read_settings(ApiSettings, given)
    host = socket.gethostname()
    if process is Process.API:
        is_alive = _api_is_alive(settings.port)
    else:
        is_alive = asyncio.run(_is_in_pool(process, settings, host))
    if not is_alive:
        raise NotAlive(f"no {process} of host {host} is alive in pool {settings.pool}")
    print("alive")


def _api_is_alive(port: int) -> bool:
    direct = build_opener(ProxyHandler({}))  # a proxy would look for it on its own machine
    try:
        direct.open(f"http://127.0.0.1:{port}/health", timeout=TIMEOUT_S).close()
    except (OSError, HTTPException):
        return False
    return True


async def _is_in_pool(process: Process, settings: ApiSettings, host: str) -> bool:
    redis, keys = connect(settings.redis_url), Keys(settings.pool)
    try:
        if process is Process.WORKER:
            return await _worker_is_alive(redis, keys, host)
        with redis_errors():
            return bool(await redis.exists(keys.control(host)))
    finally:
        await redis.aclose()


async def _worker_is_alive(redis: Redis, keys: Keys, host: str) -> bool:
    workers = await Queue(redis, keys).workers()
    alive = [w for w in workers if w.id.startswith(f"{host}:") and w.lease_left_ms > 0]
    stalled = [w for w in alive if w.info.is_stalled]
    if stalled and len(stalled) == len(alive):
        seconds = stalled[0].info.step_ms / 1000
        raise NotAlive(
            f"worker {stalled[0].id} is stalled: its engine is at one step for {seconds:.0f} s"
        )
    return bool(alive)
