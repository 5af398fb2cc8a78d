"""Registers many simulated adapters, which no worker holds at first."""

import asyncio
from collections.abc import Iterator

from shared.protocol.adapters import Adapter
from shared.store.adapters.registry import Registry
from shared.store.redis.connection import connect
from shared.store.redis.keys import Keys
from worker.engine_simulated.adapters import SimulatedAdapter, source_digest, version_of

NUM_AT_ONCE = 64


def adapter_name(number: int) -> str:
    """Return the name of adapter `number`."""
    return f"a{number}"


async def register_adapters(url: str, pool: str, num_adapters: int) -> None:
    """Register adapters 0 to `num_adapters` - 1 as clients do. The pool must have a base model."""
    redis = connect(url, max_connections=NUM_AT_ONCE)
    registry, entries = Registry(redis, Keys(pool)), _entries(num_adapters)

    async def register_some() -> None:
        for entry in entries:
            await registry.load_adapter(entry, replace=False)

    try:
        await asyncio.gather(*(register_some() for _ in range(NUM_AT_ONCE)))
    finally:
        await redis.aclose()


def _entries(num_adapters: int) -> Iterator[Adapter]:
    for name in map(adapter_name, range(num_adapters)):
        digest = source_digest(name)
        adapter = SimulatedAdapter(
            name=name, version=version_of(name, digest), digest=digest, source=name
        )
        yield adapter.registry_entry(name)
