"""Pauses of single workers. A paused or draining worker stays in the pool, and gets no jobs."""

from enum import StrEnum

from shared.protocol.ids import WorkerId
from shared.protocol.workers import WorkerMode
from shared.store.redis.connection import Redis
from shared.store.redis.durability import Durability
from shared.store.redis.keys import Keys
from shared.store.redis.pool_store import PoolStore


class ModeOutcome(StrEnum):
    """Outcome of a change of a worker's mode, as in `set_mode.lua`."""

    OK = "ok"
    UNKNOWN = "unknown"
    """The worker isn't in the pool."""
    UNABLE = "unable"
    """The worker can't be paused, because it runs an earlier release of Lorikeet."""


class WorkerModes(PoolStore):
    """Changes the modes of one pool's workers. The audit log has the changes."""

    def __init__(self, redis: Redis, keys: Keys, *, durability: Durability | None = None) -> None:
        """Create a store. With `durability`, a change returns once its required copies exist."""
        super().__init__(redis, keys)
        self._durability = durability

    async def set(self, wid: WorkerId, mode: WorkerMode, *, by: str) -> ModeOutcome:
        """Pause, drain or resume a worker. May be repeated. `by` is the author of the change.

        Once the call returns, a paused worker gets no job. It keeps its mode when it loses its
        lease, and forgets the mode when its process ends.

        Raises:
            RedisUnavailable: Redis can't be reached. The mode may have changed.
        """
        reply = await self._scripts.run(
            *("set_mode", wid, mode, by), durability=self._durability, is_promise=lambda _: True
        )
        return ModeOutcome(reply.decode())
