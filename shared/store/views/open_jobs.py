"""Finds the unfinished jobs of a tenant, so that the tenant can cancel several at once."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from shared.protocol.ids import JobId
from shared.store.redis.connection import chunks
from shared.store.redis.pool_store import PoolStore

_FIELDS = ["rid", "preemptible"]


class OpenJobs(PoolStore):
    """Reads the unfinished jobs of one pool. Jobs of batches are left out."""

    async def of(self, tenant: str) -> Sequence[JobId]:
        """Return all unfinished jobs of a tenant."""
        return await self._find(tenant, lambda _: True)

    async def named(self, tenant: str, rid: str, *, is_prefix: bool = False) -> Sequence[JobId]:
        """Return the tenant's unfinished jobs whose `Job.rid` is `rid`.

        With `is_prefix`, return the jobs whose `Job.rid` begins with `rid`.
        """
        return await self._find(
            tenant, lambda name: name.startswith(rid) if is_prefix else name == rid
        )

    async def _find(self, tenant: str, is_wanted: Callable[[str], bool]) -> Sequence[JobId]:
        # Redis looks up the members of the smaller set, so old answers of the tenant cost nothing.
        raw = await self._redis.zinter([self._keys.due, self._keys.jobs(tenant)])
        found: list[JobId] = []
        for some in chunks([JobId(each.decode()) for each in raw]):
            for job_id, (rid, preemptible) in zip(some, await self._read(some), strict=True):
                if preemptible is None and is_wanted((rid or b"").decode()):
                    found.append(job_id)
        return found

    async def _read(self, ids: Iterable[JobId]) -> Sequence[Sequence[bytes | None]]:
        pipe: Any = self._redis.pipeline(transaction=False)
        for job_id in ids:
            pipe.hmget(self._keys.job(job_id), _FIELDS)
        read: Sequence[Sequence[bytes | None]] = await pipe.execute()
        return read
