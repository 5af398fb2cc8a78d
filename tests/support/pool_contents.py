"""Everything that a pool has in Redis, for tests of what may not be there."""

from typing import Any

from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys


async def pool_contents(redis: Redis, keys: Keys) -> dict[str, str]:
    """Return the value of each key of the pool as text."""
    found = {}
    async for key in redis.scan_iter(match=f"{keys.prefix}*", count=1000):
        found[key.decode()] = str(await _value_of(redis, key))
    return found


async def _value_of(redis: Redis, key: bytes) -> Any:
    kind = await redis.type(key)
    match kind:
        case b"string":
            return await redis.get(key)
        case b"hash":
            return await redis.hgetall(key)  # type: ignore[misc]
        case b"zset":
            return await redis.zrange(key, 0, -1)
        case b"set":
            return await redis.smembers(key)  # type: ignore[misc]
        case b"list":
            return await redis.lrange(key, 0, -1)  # type: ignore[misc]
        case b"stream":
            return await redis.xrange(key)
        case b"none":
            return None  # it has expired meanwhile
    raise AssertionError(f"unexpected type {kind!r}")
