"""Table of API keys for the terminal."""

from collections.abc import Sequence

from rich.table import Table

from ops.terminal import utc_minutes
from shared.protocol.access.rights import KeyLimits
from shared.store.access.key_store import StoredKey


def key_table(keys: Sequence[StoredKey], now_ms: int) -> Table:
    """Return a table of keys. `now_ms` is the Unix time in milliseconds on Redis' clock."""
    table = Table()
    for column in ("id", "tenant", "scopes", "models", "limits", "created", "state"):
        table.add_column(column, no_wrap=column == "id", overflow="fold")
    for key in keys:
        scopes, models = " ".join(sorted(key.access.scopes)), " ".join(key.access.models)
        limits, created = _limits_text(key.limits), utc_minutes(key.created_ms)
        names = (key.id, key.access.tenant, scopes, models)
        table.add_row(*names, limits, created, _state(key, now_ms))
    return table


def _limits_text(limits: KeyLimits) -> str:
    pairs = (
        (limits.requests_per_minute, "requests/min"),
        (limits.tokens_per_minute, "tokens/min"),
        (limits.requests_per_day, "requests/day"),
        (limits.tokens_per_day, "tokens/day"),
    )
    return ", ".join(f"{number:,} {unit}" for number, unit in pairs if number is not None)


def _state(key: StoredKey, now_ms: int) -> str:
    if key.revoked_ms is not None:
        return f"revoked {utc_minutes(key.revoked_ms)}"
    if key.expires_ms is None:
        return "valid"
    return f"{'valid until' if key.is_valid(now_ms) else 'expired'} {utc_minutes(key.expires_ms)}"
