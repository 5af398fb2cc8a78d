"""Waits for conditions."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from shared.errors import LorikeetError

POLL_S = 0.05

T = TypeVar("T")


class NotInTime(LorikeetError):
    """A condition wasn't met in time. The message names the condition."""


async def until(
    condition: Callable[[], Awaitable[T]], subject: str, *, within_s: float = 30.0
) -> T:
    """Wait until `condition` returns a true value, and return this value.

    Raises:
        NotInTime: `within_s` passed. The message begins with `subject`.
    """
    end_s = time.monotonic() + within_s
    while not (found := await condition()):
        if time.monotonic() > end_s:
            raise NotInTime(f"{subject}: not within {within_s:g} s")
        await asyncio.sleep(POLL_S)
    return found
