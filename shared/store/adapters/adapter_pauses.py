"""Pauses of single adapters. The jobs of a paused adapter wait in their queues."""

from shared.store.adapters.refusals import conflict
from shared.store.redis.connection import Redis
from shared.store.redis.durability import Durability
from shared.store.redis.keys import Keys
from shared.store.redis.pool_store import PoolStore

MAX_PAUSED = 256
"""Maximum number of paused adapters."""


class AdapterPauses(PoolStore):
    """Pauses one pool's adapters, and resumes them. The audit log records both."""

    def __init__(self, redis: Redis, keys: Keys, *, durability: Durability | None = None) -> None:
        """Create a store.

        If `durability` is given, a change returns once enough copies of it exist.
        """
        super().__init__(redis, keys)
        self._durability = durability

    async def set(self, name: str, *, is_paused: bool, by: str) -> bool:
        """Pause or resume an adapter. May be repeated. `by` is the author of the change.

        Once the call returns, workers get no jobs of a paused adapter. Requests are accepted, their
        deadlines hold, and running jobs go on. Returns False if the name isn't registered.

        Raises:
            JobFailed: too many adapters are paused.
            RedisUnavailable: Redis can't be reached. The change may or may not have been made.
        """
        reply = await self._scripts.run(
            *("set_adapter_pause", name, int(is_paused), MAX_PAUSED, by),
            durability=self._durability,
            is_promise=lambda _: True,
        )
        if reply == b"full":
            raise conflict(f"{MAX_PAUSED} adapters are paused already; resume one")
        return bool(reply == b"ok")

    async def names(self) -> frozenset[str]:
        """Return the names of the paused adapters."""
        raw = await self._redis.hkeys(self._keys.paused_adapters)  # type: ignore[misc]
        return frozenset(name.decode() for name in raw)
