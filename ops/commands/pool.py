"""Gives commands access to one pool through Redis."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ops.commands.flags import read_settings
from shared.settings import PoolSettings
from shared.store.access.key_store import KeyStore
from shared.store.adapters.registry import Registry
from shared.store.audit.auditor import Auditor
from shared.store.audit.running_audit import RunningAudit
from shared.store.jobs.dead_letters import DeadLetters
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import check_redis, connect
from shared.store.redis.durability import durability_of
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """One pool's stores in Redis, which the commands read and change."""

    queue: Queue
    views: PoolViews
    registry: Registry
    letters: DeadLetters
    auditor: Auditor
    audit: RunningAudit
    keys: KeyStore


def on_pool(given: dict[str, Any], use: Callable[[Pool], Awaitable[T]]) -> T:
    """Call `use` with the pool that the flags `given` and the environment select.

    Return the result of the call.

    Raises:
        SettingsError: a setting is invalid.
        RedisUnavailable: Redis can't be reached.
    """
    settings = read_settings(PoolSettings, given)

    async def connected() -> T:
        redis, keys = connect(settings.redis_url), Keys(settings.pool)
        try:
            await check_redis(redis, settings.redis_url)
            queue = Queue(redis, keys, durability=await durability_of(redis, settings))
            return await use(
                Pool(
                    queue=queue,
                    views=PoolViews(redis, keys),
                    registry=Registry(redis, keys),
                    letters=DeadLetters(redis, keys),
                    auditor=Auditor(redis, keys),
                    audit=RunningAudit(redis, keys),
                    keys=KeyStore(redis, keys),
                )
            )
        finally:
            await redis.aclose()

    return asyncio.run(connected())
