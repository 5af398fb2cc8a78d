"""Pages of a tenant's files and batches, newest first."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from shared.protocol.access.rights import Access
from shared.store.redis.connection import Redis

NUM_READ = 200
"""Minimum number of items per read for a client that may not see all items."""


class Owned(Protocol):
    """An item, such as a file or a batch, that a tenant owns."""

    @property
    def models(self) -> tuple[str, ...]:
        """Patterns of the models that the API key of the item's creator allows."""


T = TypeVar("T", bound=Owned)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a list."""

    items: list[T]
    has_more: bool
    """Whether the list has more items after the last item of this page."""


async def read_page(
    redis: Redis,
    key: str,
    read: Callable[[Sequence[str]], Awaitable[Sequence[T | None]]],
    *,
    access: Access,
    limit: int,
    after: str | None,
) -> Page[T] | None:
    """Return one page of the items that the client may see, newest first, after the item `after`.

    `key` is a sorted set of the items' ids, and `read` returns the items with the given ids, or
    None for those that have expired. Returns None if the sorted set has no member `after`. The
    limits on the tenant's items bound the time of the call.
    """
    start = 0
    if after is not None:
        rank = await redis.zrevrank(key, after)
        if rank is None:
            return None
        start = rank + 1
    num_read = limit + 1 if access.allows_all else max(limit + 1, NUM_READ)
    found: list[T] = []
    while len(found) <= limit:
        raw = await redis.zrevrange(key, start, start + num_read - 1)
        if not raw:
            break
        start += len(raw)
        items = await read([each.decode() for each in raw])
        found += [item for item in items if item is not None and access.covers(item.models)]
    return Page(found[:limit], has_more=len(found) > limit)
