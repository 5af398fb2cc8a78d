"""What every call to Redis from an event loop needs: a time limit, one error, and a way out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.errors import RedisUnavailable
from shared.store.connection import CONNECT_TIMEOUT_S, REDIS_DOWN


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


def is_cancelled() -> bool:
    """Whether the current task was told to stop; loops that call Redis ask it.

    redis-py sends through `asyncio.wait_for`, which before Python 3.12 drops a cancellation that
    arrives just when it completes.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
