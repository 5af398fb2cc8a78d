"""Pages of a tenant's files and batches, newest first."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from shared.store.connection import Redis

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items of a list."""

    items: list[T]
    has_more: bool
    """Whether the list goes on after the last item."""


async def read_page(
    redis: Redis,
    key: str,
    read: Callable[[Sequence[str]], Awaitable[Sequence[T | None]]],
    *,
    limit: int,
    after: str | None,
) -> Page[T] | None:
    """Return the newest items of a sorted set that come after the member `after`.

    Args:
        redis: the client.
        key: a sorted set of ids.
        read: returns the items with the given ids, and None for those that have expired.
        limit: maximum number of items.
        after: the last id of the previous page; None for the first page.

    Returns:
        The page, or None if the sorted set has no member `after`.
    """
    start = 0
    if after is not None:
        rank = await redis.zrevrank(key, after)
        if rank is None:
            return None
        start = rank + 1
    found: list[T] = []
    while len(found) <= limit:
        raw = await redis.zrevrange(key, start, start + limit)
        if not raw:
            break
        start += len(raw)
        items = await read([each.decode() for each in raw])
        found += [item for item in items if item is not None]
    return Page(found[:limit], has_more=len(found) > limit)
