"""A time limit and one error for every Redis call that a request waits for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.connection import CONNECT_TIMEOUT_S, REDIS_DOWN
from shared.errors import RedisUnavailable


@asynccontextmanager
async def redis_guard() -> AsyncIterator[None]:
    """Turn a lost or silent Redis into `RedisUnavailable`, after two seconds at the latest.

    A call that was cut off may still be executed.
    """
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            yield
    except REDIS_DOWN as error:  # the time limit's TimeoutError is an OSError
        raise RedisUnavailable(str(error) or "Redis doesn't answer") from error
