"""Sums up the entries of the ledger into the rows of GET /v1/usage."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from api.access.usage_query import Group, UsageQuery
from shared.protocol.access.rights import Access, Scope
from shared.store.access.ledger import Ledger, Used


@dataclass(frozen=True, slots=True)
class UsageRow:
    """Sum of all ledger entries that have the same values in the columns of the query."""

    names: dict[Group, str]
    """Value of each column of the query. It is the same in all entries of the row."""
    used: Used

    @property
    def id(self) -> str:
        """Id of the row: its values in `names`, separated by spaces."""
        return " ".join(self.names.values())

    @property
    def body(self) -> dict[str, Any]:
        """The row as JSON."""
        return {**{group.value: name for group, name in self.names.items()}, **asdict(self.used)}


async def usage_rows(ledger: Ledger, access: Access, query: UsageQuery) -> AsyncIterator[UsageRow]:
    """Yield the rows after `query.after` that a client may see, sorted by the row's columns.

    If the query groups usage by day, only the rows of one day are in memory at a time. Otherwise,
    all rows are in memory at once.
    """
    for days in _parts(query):
        for row in await _rows_of(ledger, access, query, days):
            yield row


def _parts(query: UsageQuery) -> list[list[date]]:
    """Divide the query's days into groups. Callers sum up and yield the groups one by one."""
    if Group.DAY not in query.groups:
        return [query.days]
    first = query.after[0] if query.after else ""
    return [[day] for day in query.days if day.isoformat() >= first]


async def _rows_of(
    ledger: Ledger, access: Access, query: UsageQuery, days: Sequence[date]
) -> list[UsageRow]:
    sums: dict[tuple[str, ...], Used] = {}
    for day in days:
        for entry in await ledger.entries(day, await _tenants(ledger, access, query, day)):
            if access.allows(entry.model):
                names = {
                    Group.DAY: entry.day.isoformat(),
                    Group.TENANT: entry.tenant,
                    Group.MODEL: entry.model,
                }
                key = tuple(names[group] for group in query.groups)
                sums[key] = sums.get(key, Used()) + entry.used
    return [
        UsageRow(dict(zip(query.groups, key, strict=True)), sums[key])
        for key in sorted(sums)
        if query.after is None or key > query.after
    ]


async def _tenants(ledger: Ledger, access: Access, query: UsageQuery, day: date) -> Sequence[str]:
    if Scope.ADMIN not in access.scopes:
        return [access.tenant]
    return [query.tenant] if query.tenant is not None else await ledger.tenants(day)
