"""Estimates the memory of a pool's Redis keys by kind.

The kind of a key is the word after the pool's prefix in the key's name.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from shared.store.redis.connection import Redis
from shared.store.redis.keys import Each, Keys, Single

NUM_SAMPLED = 200
NUM_FIELDS = 64
"""Maximum number of fields or entries of a key that Redis measures to estimate its size."""
OTHER = "other"
"""If this release doesn't know the kind of a key, the key's bytes are counted under this kind."""


async def estimate_key_bytes(redis: Redis, keys: Keys) -> dict[str, int]:
    """Return the estimated number of bytes of the pool's keys, by kind.

    Kinds with a single key are measured directly. Other kinds are estimated from `NUM_SAMPLED`
    random keys of the database. If a few keys are large, the estimates vary from call to call.
    """
    kinds = key_kinds()
    singles = [kind for kind, is_single in kinds.items() if is_single]
    pipe = redis.pipeline(transaction=False)
    pipe.dbsize()
    for kind in singles:
        pipe.memory_usage(keys.prefix + kind, samples=NUM_FIELDS)
    for _ in range(NUM_SAMPLED):
        pipe.randomkey()
    num_keys, *replies = await pipe.execute()
    measured = {kind: size or 0 for kind, size in zip(singles, replies, strict=False)}
    sampled_keys = [key for key in replies[len(singles) :] if key]
    sampled = await _sampled_bytes(redis, _with_kinds(sampled_keys, keys, kinds))
    scale = num_keys / max(1, len(sampled_keys))
    estimated = {kind: round(size * scale) for kind, size in sampled.items()}
    return {**dict.fromkeys((*kinds, OTHER), 0), **estimated, **measured}


def key_kinds() -> dict[str, bool]:
    """Return, for each kind of key, whether a pool has exactly one key of this kind."""
    kinds = [each for each in vars(Keys).values() if isinstance(each, Single | Each)]
    return {each.kind: isinstance(each, Single) for each in kinds}


def _with_kinds(
    sampled_keys: Iterable[bytes], keys: Keys, kinds: Mapping[str, bool]
) -> list[tuple[str, bytes]]:
    """Return (kind, key) for each sampled key of the pool, without kinds that have a single key."""
    prefix = keys.prefix.encode()
    pool = [key for key in sampled_keys if key.startswith(prefix)]
    words = [key.removeprefix(prefix).partition(b":")[0] for key in pool]
    named = [(word.decode(errors="replace"), key) for word, key in zip(words, pool, strict=True)]
    return [(kind if kind in kinds else OTHER, key) for kind, key in named if not kinds.get(kind)]


async def _sampled_bytes(redis: Redis, sample: list[tuple[str, bytes]]) -> dict[str, int]:
    pipe = redis.pipeline(transaction=False)
    for _, key in sample:
        pipe.memory_usage(key, samples=NUM_FIELDS)
    sizes: list[Any] = await pipe.execute()
    total: dict[str, int] = {}
    for (kind, _), size in zip(sample, sizes, strict=True):
        total[kind] = total.get(kind, 0) + (size or 0)  # None if the key was deleted
    return total
