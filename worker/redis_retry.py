"""Waiting for Redis to come back."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from shared.errors import RedisUnavailable

log = structlog.get_logger()
T = TypeVar("T")

FIRST_DELAY_S = 0.05
MAX_DELAY_S = 1.0


async def until_redis_is_back(call: Callable[[], Awaitable[T]]) -> T:
    """What `call` returns, once it doesn't fail for want of Redis. Repeating it must be safe."""
    delay_s = FIRST_DELAY_S
    while True:
        try:
            return await call()
        except RedisUnavailable as error:
            log.warning("redis_away", error=str(error), retry_s=delay_s)
        await asyncio.sleep(delay_s)
        delay_s = min(2 * delay_s, MAX_DELAY_S)
