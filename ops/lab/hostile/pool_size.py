"""Measures how much data a pool keeps in Redis and in its file store."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis

CHANGING = {
    *("arq", "audit", "barrier", "cnt", "control", "history", "incidents", "out", "reported"),
    *("served", "w", "wake"),
}
"""Kinds of keys that appear and disappear, or change their size, without requests of clients."""
_SIZES = {b"hash": "hlen", b"list": "llen", b"set": "scard", b"stream": "xlen", b"zset": "zcard"}
"""Name of the Redis command that returns the size of a container, by the container's type."""
GROWING = {"apis", "base", "changes", "ledger"}
"""Kinds of keys whose numbers of items may grow, for example with each day, model or change."""
BOUNDED = {"record", "unanswered", "unansweredbytes"}
"""Kinds of keys of the records of failed jobs, which `--unanswered-mb` limits in bytes."""
LATER = {"endedbatches"}
"""Kinds of keys that are deleted a minute after the ends of batches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSize:
    """Amount of data that a pool keeps."""

    keys: dict[str, int]
    """Number of Redis keys of each kind."""
    items: dict[str, int]
    """Number of members, fields and entries in the keys of each kind."""
    redis_bytes: int
    """Memory that the counted keys take in Redis, in bytes."""
    num_objects: int
    object_bytes: int

    def excess_over(self, before: "PoolSize") -> list[str]:
        """Return a line for each kind of data that has grown since `before`."""
        found = [
            *_excess("keys", self.keys, before.keys),
            *_excess("items", self.items, before.items),
        ]
        if self.num_objects > before.num_objects:
            found.append(f"{self.num_objects - before.num_objects} more objects in the file store")
        return found


async def pool_size(redis: Redis, prefix: str, files: Path, *, waits: bool) -> PoolSize:
    """Measure a pool. With `waits`, include the keys of `LATER`, which are deleted with a delay."""
    keys: Counter[str] = Counter()
    items: Counter[str] = Counter()
    num_bytes = 0
    left_out = CHANGING | BOUNDED if waits else CHANGING | BOUNDED | LATER
    async for key in redis.scan_iter(match=f"{prefix}*", count=1000):
        kind = key.decode().removeprefix(prefix).partition(":")[0]
        if kind not in left_out:
            keys[kind] += 1
            items[kind] += 0 if kind in GROWING else await _num_items(redis, key)
            num_bytes += await redis.memory_usage(key) or 0
    sizes = await asyncio.to_thread(_object_sizes, files)
    return PoolSize(
        keys=dict(sorted(keys.items())),
        items=dict(sorted(items.items())),
        redis_bytes=num_bytes,
        num_objects=len(sizes),
        object_bytes=sum(sizes),
    )


def _excess(what: str, after: Mapping[str, int], before: Mapping[str, int]) -> list[str]:
    return [
        f"{number - before.get(kind, 0)} more {what} of the kind {kind}"
        for kind, number in after.items()
        if number > before.get(kind, 0)
    ]


async def _num_items(redis: Redis, key: bytes) -> int:
    """Return the number of items in the container `key`; 0 if it contains text or doesn't exist."""
    method = _SIZES.get(await redis.type(key))
    return await getattr(redis, method)(key) if method else 0


def _object_sizes(folder: Path) -> list[int]:
    return [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
