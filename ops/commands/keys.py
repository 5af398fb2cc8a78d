"""`lorikeet keys`: creates, lists and revokes API keys that Redis stores."""

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ops.commands.flags import settings_flags
from ops.commands.pool import Pool, on_pool
from ops.help_pages import App
from ops.terminal import print_line, utc_minutes
from shared.errors import LorikeetError, SettingsError
from shared.protocol.access.rights import ALL_MODELS, Access, KeyLimits, Scope
from shared.settings import PoolSettings
from shared.store.access.key_store import StoredKey

keys_app = App(help="Create, list and revoke API keys.", no_args_is_help=True)
SHOWS_POOL = frozenset({Scope.METRICS, Scope.ADMIN})
"""Scopes that show all models' names. Keys with these scopes can't be limited to some models."""
_TENANT = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PATTERN = re.compile(r"[!-~]{1,200}")
_LimitOption = typer.Option(
    min=1, metavar="N", show_default=False, help="Limit of the key. By default none."
)


class UnknownKey(LorikeetError):
    """No key has the id that a command names."""


@keys_app.command("create")
@settings_flags(PoolSettings)
def create_key(
    tenant: Annotated[
        str,
        typer.Option(metavar="NAME", help="Owner of the key in jobs, limits, logs and usage."),
    ],
    scopes: Annotated[
        list[Scope] | None,
        typer.Option(help="What the key may do; may be repeated. By default inference."),
    ] = None,
    adapters: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Models that the key may use, such as 'sql-*'; may be repeated. By default all.",
        ),
    ] = None,
    requests_per_minute: Annotated[int | None, _LimitOption] = None,
    tokens_per_minute: Annotated[int | None, _LimitOption] = None,
    requests_per_day: Annotated[int | None, _LimitOption] = None,
    tokens_per_day: Annotated[int | None, _LimitOption] = None,
    expires_days: Annotated[
        int | None,
        typer.Option(
            min=1, max=36_500, metavar="N", show_default=False, help="Days until it expires."
        ),
    ] = None,
    **given: Any,
) -> None:
    """Create an API key, and print it once. Redis stores only its digest.

    Front ends demand a key once the first one exists. Limits on tokens count
    prompts and answers. Minutes and days are those of the UTC clock.
    """
    access = _access(tenant, scopes or [Scope.INFERENCE], adapters or [ALL_MODELS])
    limits = KeyLimits(
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        requests_per_day=requests_per_day,
        tokens_per_day=tokens_per_day,
    )
    lifetime_ms = expires_days and int(timedelta(days=expires_days).total_seconds() * 1000)
    key, secret = on_pool(
        given, lambda pool: pool.keys.create(access, limits, lifetime_ms=lifetime_ms)
    )
    Console(stderr=True).print(f"key {key.id} of {tenant}; it can't be shown again:")
    print_line(secret)


@keys_app.command("list")
@settings_flags(PoolSettings)
def list_keys(**given: Any) -> None:
    """List all API keys, including revoked ones. Their secrets aren't stored."""

    async def read(pool: Pool) -> tuple[list[StoredKey], int]:
        return await pool.keys.all(), await pool.keys.now_ms()

    keys, now_ms = on_pool(given, read)
    if keys:
        Console().print(_key_table(keys, now_ms))
    else:
        print_line("the pool has no stored keys")


@keys_app.command("revoke")
@settings_flags(PoolSettings)
def revoke_key(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the key, as in the list.")],
    **given: Any,
) -> None:
    """Revoke an API key. Front ends refuse it within two seconds."""
    if not on_pool(given, lambda pool: pool.keys.revoke(key_id)):
        raise UnknownKey(f"no key has the id {key_id}; `lorikeet keys list` shows all ids")
    print_line(f"{key_id}: revoked")


def _access(tenant: str, scopes: Sequence[Scope], models: Sequence[str]) -> Access:
    """Return the rights of a new key, or raise SettingsError for invalid flags."""
    if not _TENANT.fullmatch(tenant):
        raise SettingsError(
            f"--tenant: {tenant!r} isn't a name of at most 64 letters, digits, _ and -"
        )
    for pattern in models:
        if not _PATTERN.fullmatch(pattern):
            raise SettingsError(f"--adapters: {pattern!r} isn't a pattern without spaces")
    if too_wide := SHOWS_POOL.intersection(scopes) if ALL_MODELS not in models else None:
        raise SettingsError(
            f"--adapters: a key with the scope {min(too_wide)} sees the names of all models; "
            "leave one of the two out"
        )
    return Access(tenant=tenant, scopes=frozenset(scopes), models=tuple(models))


def _key_table(keys: Sequence[StoredKey], now_ms: int) -> Table:
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
