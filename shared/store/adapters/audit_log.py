"""The audit log: changes of adapters and API keys, with their authors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shared.store.redis.connection import Pipeline, decode_hash
from shared.store.redis.keys import Keys
from shared.store.redis.pool_store import PoolStore

PAGE = 200
"""Number of changes that are read at a time."""
MAX_CHANGES = 10_000
"""Number of changes that are kept, as in `audit_log.lua`."""
# Names that no tenant can have.
OPERATOR = ".operator"
"""Author of changes by a command that uses Redis directly."""
POOL = ".pool"
"""Author of changes that the pool makes by itself."""
WORKER = ".worker"
"""Author when a worker loads an adapter that is named in the worker's settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of an adapter or of an API key."""

    id: str
    """Id of the entry in Redis. Later changes have larger ids."""
    action: str
    """Action, such as `loaded`. A later release may record actions that this one doesn't know."""
    adapter: str
    """Name of the adapter. Empty for changes of API keys."""
    by: str
    """Author: `OPERATOR`, `POOL`, `WORKER`, or the tenant of an API key. If the key is stored, its
    id follows the tenant after a slash."""
    before: str
    """Version or other value before the change. Empty if there was none."""
    after: str
    """Version or other value after the change. Empty if there is none."""

    @property
    def time_ms(self) -> int:
        """Unix time of the change in milliseconds, on Redis' clock."""
        return int(self.id.partition("-")[0])


class Changes(PoolStore):
    """The audit log of one pool."""

    async def newest(
        self, limit: int, *, before: str | None, wanted: Callable[[Change], bool]
    ) -> Sequence[Change]:
        """Return up to `limit` changes for which `wanted` is true, newest first.

        If `before` is the id of a change, only earlier changes are returned.
        """
        found: list[Change] = []
        end = f"({before}" if before else "+"
        for _ in range(2 * MAX_CHANGES // PAGE):
            entries = await self._redis.xrevrange(self._keys.changes, max=end, count=PAGE)
            changes = [_change(entry.decode(), decode_hash(fields)) for entry, fields in entries]
            found += [change for change in changes if wanted(change)]
            if len(found) >= limit or len(entries) < PAGE:
                break
            end = f"({changes[-1].id}"
        return found[:limit]


def log_key_change(
    pipe: Pipeline, keys: Keys, action: str, by: str, *, before: str = "", after: str = ""
) -> None:
    """Add to `pipe` a command that logs a change of an API key.

    `after` names a created key, and `before` a revoked key. Both have the form `tenant/id`.
    Adapters don't need this function, because the Lua scripts that change adapters log the changes
    themselves.
    """
    fields = {"action": action, "adapter": "", "by": by, "from": before, "to": after}
    pipe.xadd(keys.changes, fields, maxlen=MAX_CHANGES, approximate=True)  # type: ignore[arg-type]


def _change(entry: str, fields: dict[str, str]) -> Change:
    return Change(
        id=entry,
        action=fields["action"],
        adapter=fields["adapter"],
        by=fields["by"],
        before=fields["from"],
        after=fields["to"],
    )
