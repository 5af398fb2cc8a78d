"""A value that is read at most once a second, however many ask for it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

MAX_AGE_S = 1.0

T = TypeVar("T")


class Recent(Generic[T]):
    """What `read` gave last, if that is recent; else it is read anew, once for all who wait."""

    def __init__(self, read: Callable[[], Awaitable[T]]) -> None:
        self._read = read
        self._is_reading = asyncio.Lock()
        self._last: tuple[float, T] | None = None

    async def get(self) -> T:
        """The value, at most about a second old."""
        async with self._is_reading:
            if self._last is None or time.monotonic() - self._last[0] >= MAX_AGE_S:
                value = await self._read()
                self._last = time.monotonic(), value
            return self._last[1]
