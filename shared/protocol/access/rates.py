"""Use of an API key's limits in the present minute and day."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

NO_LIMIT = -1


class Unit(StrEnum):
    """What a limit counts."""

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
    """Use of one limit in its present window."""

    unit: Unit
    window: Window
    limit: int
    used: int
    """Number of requests, or of tokens.

    Unfinished requests also count with the tokens that they have reserved and not yet used. It may
    exceed the limit, and then what exceeds it counts in the next windows, too.
    """
    left_ms: int
    """Milliseconds until the next window begins."""

    @property
    def remaining(self) -> int:
        """Number of requests or tokens that are left."""
        return max(0, self.limit - self.used)

    def wait_ms(self, needed: int) -> int:
        """Return the milliseconds until `needed` requests or tokens are left.

        `needed` is at most the limit. Requests that end with fewer tokens than they have reserved
        make the time shorter.
        """
        num_windows = math.ceil((self.used + needed - self.limit) / self.limit)
        return self.left_ms + max(0, num_windows - 1) * self.window.length_ms


def read_rates(row: Sequence[int]) -> tuple[Rate, ...]:
    """Return the limits in a reply of `enqueue.lua`.

    `row` has five numbers for each window: its remaining milliseconds, and then limit and use of
    requests and of tokens. Limits that a key doesn't have are `NO_LIMIT`. It is empty for a request
    without a stored key.
    """
    return tuple(rate for rate in _rates(row) if rate.limit != NO_LIMIT) if row else ()


def _rates(row: Sequence[int]) -> Iterator[Rate]:
    for number, window in enumerate(Window):
        left_ms, *pairs = row[5 * number : 5 * number + 5]
        for unit, limit, used in zip(Unit, pairs[::2], pairs[1::2], strict=True):
            yield Rate(unit=unit, window=window, limit=limit, used=used, left_ms=left_ms)
