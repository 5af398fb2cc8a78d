"""Measures the memory of a pool's keys exactly, by kind. The kind is the word after the prefix."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from shared.store.redis.connection import Redis, chunks
from shared.store.redis.keys import Keys


@dataclass(frozen=True, slots=True)
class KindBytes:
    """All keys of one kind."""

    num_keys: int
    num_bytes: int


async def bytes_by_kind(redis: Redis, keys: Keys) -> dict[str, KindBytes]:
    """Return the memory of the pool's keys by kind, in the order of their size."""
    names = [key async for key in redis.scan_iter(match=f"{keys.prefix}*", count=1000)]
    sizes: defaultdict[str, list[int]] = defaultdict(list)
    for chunk in chunks(names):
        pipe = redis.pipeline(transaction=False)
        for name in chunk:
            pipe.memory_usage(name, samples=0)
        for name, size in zip(chunk, await pipe.execute(), strict=True):
            kind = name.decode().removeprefix(keys.prefix).partition(":")[0]
            sizes[kind].append(size or 0)  # None if the key was deleted meanwhile
    kinds = {kind: KindBytes(len(found), sum(found)) for kind, found in sizes.items()}
    return dict(sorted(kinds.items(), key=lambda item: -item[1].num_bytes))


def growth_per_job(
    before: Mapping[str, KindBytes], after: Mapping[str, KindBytes], num_jobs: int
) -> dict[str, float]:
    """Return the bytes that each of `num_jobs` jobs has added, by kind, without unchanged kinds."""
    nothing = KindBytes(0, 0)
    grown = {
        kind: (found.num_bytes - before.get(kind, nothing).num_bytes) / num_jobs
        for kind, found in after.items()
    }
    return {kind: added for kind, added in grown.items() if added}
