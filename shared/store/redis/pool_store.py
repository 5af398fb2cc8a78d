"""Base class of the stores. Each store reads and changes one kind of record in a pool's Redis."""

from shared.store.redis.connection import MAX_BLOCK_S, Redis
from shared.store.redis.keys import Keys
from shared.store.redis.scripts import Scripts


class PoolStore:
    """Base class of a store for one kind of record, such as jobs.

    Has the client, keys and scripts of the pool's Redis.
    """

    def __init__(self, redis: Redis, keys: Keys) -> None:
        """Create a store with a client of the pool's Redis, and the pool's keys."""
        self._redis = redis
        self._keys = keys
        self._scripts = Scripts(redis, keys)

    async def _take_first(self, key: str, timeout_s: float, *more: str) -> bytes | None:
        """Remove and return the first item of the first list that isn't empty.

        If all lists are empty, wait up to `timeout_s` seconds for an item, but at most two seconds.
        Return None if no item arrives.
        """
        taken = await self._redis.blpop(  # type: ignore[misc]
            [key, *more],
            timeout=min(timeout_s, MAX_BLOCK_S),  # type: ignore[arg-type]  # takes floats
        )
        return taken[1] if taken else None
