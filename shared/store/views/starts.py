"""What a worker does while it starts. Front ends report it while the pool has no base model."""

from dataclasses import asdict, dataclass

import orjson

from shared.protocol.known_fields import known_fields
from shared.store.redis.pool_store import PoolStore

TTL_MS = 10_000
"""Milliseconds after which a reported step expires, in case its worker has died."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartStep:
    """One step of a worker's start. Redis stores it as JSON with these fields."""

    step: str
    """What the worker does, such as "compiling the CPU kernels"."""
    done: int = 0
    """Number of parts of the step that are done."""
    total: int = 0
    """Number of parts of the step; 0 if the number isn't known."""
    elapsed_s: float = 0.0
    """Seconds since the start of the worker."""

    def __str__(self) -> str:
        """Return the step as part of a sentence, with its progress if that is known."""
        return f"{self.step} ({self.done} of {self.total})" if self.total else self.step


class WorkerStarts(PoolStore):
    """Writes and reads the latest step that a starting worker of one pool has reported."""

    async def report(self, step: StartStep) -> None:
        """Publish the current step of a starting worker."""
        await self._redis.set(self._keys.starting, orjson.dumps(asdict(step)), px=TTL_MS)

    async def latest(self) -> StartStep | None:
        """Return the step that was reported last, or None if no worker is starting."""
        raw = await self._redis.get(self._keys.starting)
        return None if raw is None else StartStep(**known_fields(StartStep, orjson.loads(raw)))
