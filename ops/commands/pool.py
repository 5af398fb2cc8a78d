"""What the commands share that look into a pool through Redis."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ops.commands.flags import read_settings
from shared.connection import check_redis, connect
from shared.durability import durability_of
from shared.keys import Keys
from shared.letters import Letters
from shared.queue import Queue
from shared.registry import Registry
from shared.settings import PoolSettings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool, as operators see it."""

    queue: Queue
    registry: Registry
    letters: Letters


def on_pool(given: dict[str, Any], use: Callable[[Pool], Awaitable[T]]) -> T:
    """What `use` returns for the pool that the flags `given` name.

    Raises:
        SettingsError: a flag is wrong.
        RedisUnavailable: Redis can't be reached.
    """
    settings = read_settings(PoolSettings, given)

    async def connected() -> T:
        redis, keys = connect(settings.redis_url), Keys(settings.pool)
        try:
            await check_redis(redis, settings.redis_url)
            queue = Queue(redis, keys, durability=await durability_of(redis, settings))
            return await use(Pool(queue, Registry(redis, keys), Letters(redis, keys)))
        finally:
            await redis.aclose()

    return asyncio.run(connected())
