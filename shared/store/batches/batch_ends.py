"""Ends of batches that the webhook of `--webhook-url` must still announce."""

from dataclasses import dataclass

from shared.protocol.ids import BatchId
from shared.store.batches.records import BatchStatus
from shared.store.redis.pool_store import PoolStore


@dataclass(frozen=True, slots=True)
class BatchEnd:
    """The end of a batch."""

    batch: BatchId
    status: BatchStatus
    ended_s: int
    """Unix time in seconds at which the batch ended."""

    @property
    def member(self) -> str:
        """Text form of the end in Redis. `end_batch.lua` also writes it."""
        return f"{self.batch} {self.status.value} {self.ended_s}"

    @classmethod
    def of(cls, member: str) -> "BatchEnd":
        """Return the end that has the text form `member`."""
        batch, status, ended_s = member.split()
        return cls(BatchId(batch), BatchStatus(status), int(ended_s))


class BatchEnds(PoolStore):
    """Reads and changes the list of ends that must still be announced."""

    async def due(self, now_s: float, *, limit: int) -> list[BatchEnd]:
        """Return up to `limit` ends that should be announced now, longest overdue first."""
        raw = await self._redis.zrangebyscore(
            self._keys.webhooks, "-inf", now_s * 1000, start=0, num=limit
        )
        return [BatchEnd.of(each.decode()) for each in raw]

    async def delay(self, end: BatchEnd, until_s: float) -> None:
        """Retry the failed announcement of an end at the Unix time `until_s`."""
        await self._redis.zadd(self._keys.webhooks, {end.member: until_s * 1000}, xx=True)

    async def forget(self, end: BatchEnd) -> None:
        """Remove an end that was announced or will never be announced."""
        await self._redis.zrem(self._keys.webhooks, end.member)
