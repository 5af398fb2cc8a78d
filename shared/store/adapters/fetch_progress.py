"""Progress of adapters that workers fetch from URLs. Front ends show it to clients."""

from dataclasses import asdict, dataclass
from enum import StrEnum

import orjson

from shared.protocol.known_fields import known_fields
from shared.store.redis.pool_store import PoolStore

TTL_MS = 10_000
"""Milliseconds after which reported progress expires, in case its worker has died."""


class Phase(StrEnum):
    """Phase of the work on an adapter before its registration."""

    RECEIVING = "receiving"
    """The worker receives the adapter's bytes."""
    UNPACKING = "unpacking"
    """The worker unpacks the archive."""
    CHECKING = "checking"
    """The worker reads the files and checks that it can serve them exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    """Progress of one adapter. Redis stores it as JSON with these fields."""

    source: str
    """Source of the adapter, without the query of its URL."""
    phase: Phase
    num_bytes: int
    """Number of received bytes."""
    total: int | None = None
    """Number of bytes to receive in total; None if the source doesn't report it."""


class StagingProgress(PoolStore):
    """Writes and reads the progress of one pool's adapters."""

    async def report(self, name: str, staging: Staging) -> None:
        """Publish the progress of the adapter `name`."""
        await self._redis.set(self._keys.staging(name), orjson.dumps(asdict(staging)), px=TTL_MS)

    async def end(self, name: str) -> None:
        """Remove the progress of the adapter `name` after it was fetched or refused."""
        await self._redis.delete(self._keys.staging(name))

    async def of(self, name: str) -> Staging | None:
        """Return the progress of the adapter `name`, or None if no worker fetches it."""
        raw = await self._redis.get(self._keys.staging(name))
        if raw is None:
            return None
        return Staging(**known_fields(Staging, orjson.loads(raw), phase=Phase))
