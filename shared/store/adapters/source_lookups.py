"""Lookups of unknown adapters in `--adapter-source` when they are first requested.

While a front end looks up an adapter, the Redis key of the adapter's name is a lease. Each name is
therefore looked up once, even if many requests and front ends need it. If the lookup is refused,
the key holds the error for a short time, during which no request reaches the source.
"""

from dataclasses import asdict, dataclass

import orjson

from shared.errors import JobError
from shared.protocol.codec import decode_job_error
from shared.store.redis.pool_store import PoolStore

LEASE_MS = 10_000
"""Milliseconds after which a lease ends unless it is renewed."""
REFUSED_MS = 30_000
"""Milliseconds for which a refusal is kept."""
_LOOKING = b"looking"


@dataclass(frozen=True, slots=True)
class Lookup:
    """State of the lookup of one name."""

    is_mine: bool = False
    """Whether the caller now has the lease, and must look up the name."""
    is_running: bool = False
    """Whether another process is looking up the name."""
    refusal: JobError | None = None
    """Error of an earlier, refused lookup; None if no error is kept."""


class SourceLookups(PoolStore):
    """Leases and refusals of one pool."""

    async def begin(self, name: str) -> Lookup:
        """Take the lease of a name, unless the name already has a lease or a refusal."""
        key = self._keys.lookup(name)
        found = await self._redis.set(key, _LOOKING, nx=True, px=LEASE_MS, get=True)
        return Lookup(is_mine=True) if found is None else _decode(found)

    async def state(self, name: str) -> Lookup:
        """Return the state of the lookup of a name.

        After a successful lookup, all fields of the returned `Lookup` have their default values.
        """
        found = await self._redis.get(self._keys.lookup(name))
        return Lookup() if found is None else _decode(found)

    async def renew(self, name: str) -> None:
        """Extend the lease of a name."""
        await self._redis.pexpire(self._keys.lookup(name), LEASE_MS)

    async def refuse(self, name: str, error: JobError) -> None:
        """End a refused lookup, and keep its error."""
        await self._redis.set(self._keys.lookup(name), orjson.dumps(asdict(error)), px=REFUSED_MS)

    async def end(self, name: str) -> None:
        """End a lookup, so that the next request may begin another one."""
        await self._redis.delete(self._keys.lookup(name))


def _decode(found: bytes) -> Lookup:
    if found == _LOOKING:
        return Lookup(is_running=True)
    return Lookup(refusal=decode_job_error(orjson.loads(found)))
