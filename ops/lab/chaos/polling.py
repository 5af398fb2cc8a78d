"""Waits for conditions."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from shared.errors import LorikeetError, RedisUnavailable

POLL_S = 0.05

T = TypeVar("T")
U = TypeVar("U")


class NotInTime(LorikeetError):
    """A condition wasn't met in time. The message names the condition."""


async def until(
    condition: Callable[[], Awaitable[T]], subject: str, *, within_s: float = 30.0
) -> T:
    """Wait until `condition` returns a true value, and return this value.

    While Redis is unavailable, the condition counts as false.

    Raises:
        NotInTime: `within_s` passed. The message begins with `subject`.
    """
    end_s = time.monotonic() + within_s
    while not (found := await seen(condition, None)):
        if time.monotonic() > end_s:
            raise NotInTime(f"{subject}: not within {within_s:g} s")
        await asyncio.sleep(POLL_S)
    return found


async def seen(look: Callable[[], Awaitable[T]], unseen: U) -> T | U:
    """Return the result of `look`, or `unseen` if Redis was unavailable."""
    try:
        return await look()
    except RedisUnavailable:
        return unseen
