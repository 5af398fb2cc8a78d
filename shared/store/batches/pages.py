"""Pages of a tenant's files and batches, newest first."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from shared.protocol.access.rights import Access
from shared.store.redis.connection import Redis

NUM_READ = 200
"""Number of items that are read at a time for a client that may not see all of them."""


class Owned(Protocol):
    """An item of a tenant."""

    @property
    def models(self) -> tuple[str, ...]:
        """Patterns of the models of the key that created the item."""


T = TypeVar("T", bound=Owned)


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
    access: Access,
    limit: int,
    after: str | None,
) -> Page[T] | None:
    """Return the newest items of a sorted set of ids that come after the member `after`.

    Items that the client may not see are left out. Limits of the tenant's items bound the time.
    `read` returns the items with the given ids, and None for those that have expired. The result is
    None if the sorted set has no member `after`.
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
