"""Pauses of a pool. While a pool is paused, its workers get no jobs, and new jobs wait."""

from dataclasses import dataclass

from shared.store.redis.connection import Redis, decode_hash
from shared.store.redis.durability import Durability
from shared.store.redis.keys import Keys
from shared.store.redis.pool_store import PoolStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A pause that hasn't ended."""

    by: str
    """Client that paused the pool, as the audit log shows it."""
    since_ms: int
    """Unix time in milliseconds at which it began, on Redis' clock."""


class Pauses(PoolStore):
    """Pauses one pool, and ends its pauses. The audit log contains both changes."""

    def __init__(self, redis: Redis, keys: Keys, *, durability: Durability | None = None) -> None:
        """Create a store.

        If `durability` is given, a change returns once enough copies of it exist.
        """
        super().__init__(redis, keys)
        self._durability = durability

    async def begin(self, *, by: str) -> None:
        """Pause the pool until `end` is called. Running jobs go on.

        Once the call returns, no worker gets a job. A pause that exists already stays as it is.

        Raises:
            RedisUnavailable: Redis can't be reached. The change may or may not have been made.
        """
        await self._set(True, by)

    async def end(self, *, by: str) -> None:
        """Let the pool continue, and wake its workers. May be repeated.

        Raises:
            RedisUnavailable: Redis can't be reached. The change may or may not have been made.
        """
        await self._set(False, by)

    async def current(self) -> Pause | None:
        """Return the pause of the pool, or None if it isn't paused."""
        fields = decode_hash(await self._redis.hgetall(self._keys.paused))  # type: ignore[misc]
        return Pause(by=fields["by"], since_ms=int(fields["since"])) if fields else None

    async def _set(self, is_paused: bool, by: str) -> None:
        # Even a call that changes nothing waits: the change may be by a call that failed.
        await self._scripts.run(
            *("set_pause", int(is_paused), by),
            durability=self._durability,
            is_promise=lambda _: True,
        )
