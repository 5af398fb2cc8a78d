"""Repeats calls while Redis is unavailable."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from shared.errors import RedisUnavailable

log = structlog.get_logger()
T = TypeVar("T")

FIRST_DELAY_S = 0.05
MAX_DELAY_S = 1.0


async def retry_until_available(call: Callable[[], Awaitable[T]]) -> T:
    """Repeat `call` while it raises `RedisUnavailable`, and return its result.

    Redis may execute the call more than once, so a repetition must be harmless.
    """
    delay_s = FIRST_DELAY_S
    while True:
        try:
            return await call()
        except RedisUnavailable as error:
            log.warning("redis_away", error=str(error), retry_s=delay_s)
        await asyncio.sleep(delay_s)
        delay_s = min(2 * delay_s, MAX_DELAY_S)
