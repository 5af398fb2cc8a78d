"""Ledger of usage: requests and tokens by UTC day, tenant and model."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import date, timedelta
from operator import add

from shared.store.redis.connection import chunks
from shared.store.redis.pool_store import PoolStore

SCAN_COUNT = 500
"""Approximate number of models whose usage one Redis command reads."""
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Used:
    """Numbers of ended requests, and of the tokens in their answers' `usage`.

    The fields have the same order as the numbers in Redis.
    """

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that were taken from the prefix cache. `prompt_tokens` includes them."""
    completion_tokens: int = 0

    def __add__(self, other: "Used") -> "Used":
        return Used(*map(add, astuple(self), astuple(other)))


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """Usage of one model by one tenant on one day."""

    day: date
    tenant: str
    model: str
    used: Used


class Ledger(PoolStore):
    """Reads the ledger of one pool. The scripts that end jobs write it."""

    async def today(self) -> date:
        """Return the present UTC day on Redis' clock. The scripts add usage to this day."""
        seconds, _ = await self._redis.time()
        return _EPOCH + timedelta(seconds=seconds)

    async def tenants(self, day: date) -> list[str]:
        """Return the tenants that have entries on a day, sorted."""
        raw = await self._redis.smembers(self._keys.ledger_tenants(_number(day)))  # type: ignore[misc]
        return sorted(each.decode() for each in raw)

    async def entries(self, day: date, tenants: Sequence[str]) -> list[LedgerEntry]:
        """Return the entries of `tenants` on a day, sorted by tenant and model."""
        found: list[LedgerEntry] = []
        for some in chunks(sorted(tenants)):
            for tenant, counts in (await self._read(day, some)).items():
                found += [
                    LedgerEntry(day=day, tenant=tenant, model=model.decode(), used=_used(value))
                    for model, value in sorted(counts.items())
                ]
        return found

    async def _read(self, day: date, tenants: Sequence[str]) -> dict[str, dict[bytes, bytes]]:
        """Return the encoded usage, by tenant and model. There may be thousands of models."""
        found: dict[str, dict[bytes, bytes]] = {tenant: {} for tenant in tenants}
        cursors = dict.fromkeys(tenants, 0)
        while cursors:
            pipe = self._redis.pipeline(transaction=False)
            for tenant, cursor in cursors.items():
                pipe.hscan(self._keys.ledger(_number(day), tenant), cursor, count=SCAN_COUNT)
            replies = dict(zip(cursors, await pipe.execute(), strict=True))
            for tenant, (_, part) in replies.items():
                found[tenant] |= part  # a scan may repeat a field
            cursors = {tenant: cursor for tenant, (cursor, _) in replies.items() if cursor}
        return found


def _number(day: date) -> int:
    return (day - _EPOCH).days


def _used(counts: bytes) -> Used:
    return Used(*map(int, counts.split()))
