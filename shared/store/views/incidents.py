"""Incidents of a pool: changes of its processes and adapters that operators should see.

The scripts that make the changes record them, so all front ends show the same incidents.
"""

from dataclasses import dataclass

from shared.protocol.ids import AdapterVersion, JobId, WorkerId
from shared.store.redis.connection import decode_hash
from shared.store.redis.pool_store import PoolStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One incident, with the worker, version and job that it concerns."""

    id: str
    """Id of the entry in Redis. Later incidents have larger ids."""
    kind: str
    """Kind, such as `worker_lost`. A later release may record kinds that this one doesn't know."""
    worker: WorkerId | None = None
    version: AdapterVersion | None = None
    job: JobId | None = None
    num_jobs: int | None = None
    """Number of jobs that the worker owned; None if the incident isn't about a worker's end."""
    process: str | None = None
    """Id of the front end or control process."""
    reason: str | None = None
    at_ms: int | None = None
    """Unix time in milliseconds; None if the incident was recorded when it happened."""

    @property
    def order(self) -> tuple[int, int]:
        """The id as two numbers. Incidents are sorted by them."""
        ms, _, number = self.id.partition("-")
        return int(ms), int(number)

    @property
    def time_s(self) -> float:
        """Unix time of the incident in seconds."""
        return (self.order[0] if self.at_ms is None else self.at_ms) / 1000


class IncidentsView(PoolStore):
    """Reads the incidents of one pool."""

    async def newest(self, limit: int) -> list[Incident]:
        """Return up to `limit` incidents, newest first."""
        entries = await self._redis.xrevrange(self._keys.incidents, count=limit)
        return [_incident(entry.decode(), decode_hash(fields)) for entry, fields in entries]


def _incident(entry: str, fields: dict[str, str]) -> Incident:
    return Incident(
        id=entry,
        kind=fields["kind"],
        worker=WorkerId(fields["worker"]) if "worker" in fields else None,
        version=AdapterVersion(fields["version"]) if "version" in fields else None,
        job=JobId(fields["job"]) if "job" in fields else None,
        num_jobs=int(fields["jobs"]) if "jobs" in fields else None,
        process=fields.get("process"),
        reason=fields.get("reason"),
        at_ms=int(fields["at"]) if "at" in fields else None,
    )
