"""Progress of adapters that workers fetch from URLs, from the workers to the front ends."""

from dataclasses import asdict

import orjson

from shared.store.adapters.staging import Phase, Staging
from shared.store.redis.pool_store import PoolStore

TTL_MS = 10_000
"""Time in ms after which the progress of a dead worker is forgotten."""


class StagingProgress(PoolStore):
    """Writes and reads the progress of one pool."""

    async def report(self, name: str, staging: Staging) -> None:
        """Publish the progress of the adapter `name`."""
        await self._redis.set(self._keys.staging(name), orjson.dumps(asdict(staging)), px=TTL_MS)

    async def end(self, name: str) -> None:
        """Remove the progress of the adapter `name`, which was fetched or refused."""
        await self._redis.delete(self._keys.staging(name))

    async def of(self, name: str) -> Staging | None:
        """Return the progress of the adapter `name`, or None if no worker fetches it."""
        raw = await self._redis.get(self._keys.staging(name))
        if raw is None:
            return None
        wire = orjson.loads(raw)
        return Staging(**{**wire, "phase": Phase(wire["phase"])})
