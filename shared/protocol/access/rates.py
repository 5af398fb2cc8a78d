"""Limits of an API key, and their use in the present minute and day."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

NO_LIMIT = -1
"""Value that `enqueue.lua` returns for each limit that the key doesn't have."""


class Unit(StrEnum):
    """Unit of a limit."""

    REQUESTS = "requests"
    TOKENS = "tokens"


class Window(StrEnum):
    """Period of a limit, on the UTC clock."""

    MINUTE = "minute"
    DAY = "day"

    @property
    def length_ms(self) -> int:
        """Length of the window, in milliseconds."""
        return 60_000 if self is Window.MINUTE else 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Use of one limit of an API key in the current window."""

    unit: Unit
    window: Window
    limit: int
    used: int
    """Number of requests or tokens used, including tokens that unfinished requests have reserved.

    If the number exceeds the limit, the excess is carried over to the next windows.
    """
    left_ms: int
    """Milliseconds from the reply until the next window begins."""

    @property
    def remaining(self) -> int:
        """Number of requests or tokens that can still be used in the current window."""
        return max(0, self.limit - self.used)

    def wait_ms(self, needed: int) -> int:
        """Return the milliseconds until the limit has room for `needed` more requests or tokens.

        `needed` is at most the limit. The time may become shorter, because requests may end with
        fewer tokens than they have reserved.
        """
        num_windows = math.ceil((self.used + needed - self.limit) / self.limit)
        return self.left_ms + max(0, num_windows - 1) * self.window.length_ms


def read_rates(row: Sequence[int]) -> tuple[Rate, ...]:
    """Return each limit and its use from a reply of `enqueue.lua`.

    For each window, `row` has five numbers: milliseconds left, request limit, requests used, token
    limit, tokens used. `row` is empty for a request without a stored key.
    """
    return tuple(rate for rate in _rates(row) if rate.limit != NO_LIMIT) if row else ()


def _rates(row: Sequence[int]) -> Iterator[Rate]:
    for number, window in enumerate(Window):
        left_ms, *pairs = row[5 * number : 5 * number + 5]
        for unit, limit, used in zip(Unit, pairs[::2], pairs[1::2], strict=True):
            yield Rate(unit=unit, window=window, limit=limit, used=used, left_ms=left_ms)
