"""Gives commands access to one pool through Redis."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from ops.commands.flags import read_settings
from shared.settings import PoolSettings
from shared.store.access.key_store import KeyStore
from shared.store.adapters.registry import Registry
from shared.store.audit.auditor import Auditor
from shared.store.audit.running_audit import RunningAudit
from shared.store.jobs.dead_letters import DeadLetters
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis, check_redis, connect
from shared.store.redis.durability import Durability, durability_of
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

T = TypeVar("T")


class Pool:
    """One pool's stores in Redis, which the commands read and change."""

    def __init__(self, redis: Redis, keys: Keys, durability: Durability | None) -> None:
        self.queue = Queue(redis, keys, durability=durability)
        self.views = PoolViews(redis, keys)
        self.registry = Registry(redis, keys)
        self.letters = DeadLetters(redis, keys)
        self.auditor = Auditor(redis, keys)
        self.audit = RunningAudit(redis, keys)
        self.keys = KeyStore(redis, keys)


def on_pool(given: dict[str, Any], use: Callable[[Pool], Awaitable[T]]) -> T:
    """Call `use` with the pool that the flags `given` and the environment select.

    Return the result of the call.

    Raises:
        SettingsError: a setting is invalid.
        RedisUnavailable: Redis can't be reached.
    """
    settings = read_settings(PoolSettings, given)

    async def connected() -> T:
        async with connect(settings.redis_url) as redis:
            await check_redis(redis, settings.redis_url)
            durability = await durability_of(redis, settings)
            return await use(Pool(redis, Keys(settings.pool), durability))

    return asyncio.run(connected())
