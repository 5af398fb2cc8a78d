"""`lorikeet keys`: creates, lists and revokes stored API keys, and opens the pool again."""

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ops.commands.clients.client_options import AdminKeyOption, UrlOption, YesOption, confirm
from ops.commands.clients.on_server import remember_options, server_of
from ops.commands.flags import read_settings
from ops.help_pages import App
from ops.terminal import print_error_line, print_line, table, utc_minutes
from shared.errors import JobFailed, LorikeetError
from shared.protocol.access.rights import Scope
from shared.settings import PoolSettings

if TYPE_CHECKING:
    from ops.pool_client import KeyClient
    from ops.redis_keys import RedisKeys

keys_app = App(help="Create, list and revoke API keys.", no_args_is_help=True)
keys_app.callback()(remember_options)
LOCKOUT = "send allow_lockout=true"
"""Advice in the server's error for programs. `--allow-lockout` takes its place."""
OPEN = "open the pool with DELETE /v1/keys?opens_pool=true"
RedisOption = Annotated[
    str | None,
    typer.Option(
        "--redis-url",
        metavar="URL",
        show_default=False,
        help="Redis of the pool, to change its keys without the server. For the first key of a "
        "server with --require-keys, or if all keys are lost.",
    ),
]
PoolOption = Annotated[
    str | None,
    typer.Option(
        "--pool", metavar="NAME", show_default=False, help="Name of the pool, with --redis-url."
    ),
]
LockoutOption = Annotated[
    bool,
    typer.Option("--allow-lockout", help="Allow that no key can manage keys afterwards."),
]
_LimitOption = typer.Option(
    min=1, metavar="N", show_default=False, help="Limit of the key. By default none."
)


def on_keys(*, changes: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command the keys of a server or, with a URL, of a Redis."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(
            context: typer.Context,
            url: UrlOption = None,
            api_key: AdminKeyOption = None,
            redis_url: RedisOption = None,
            pool: PoolOption = None,
            **given: Any,
        ) -> None:
            try:
                if redis_url is not None:
                    command(_in_redis(redis_url, pool, announces=changes), **given)
                else:
                    command(_on_server(context, url, api_key, changes=changes), **given)
            except LorikeetError as error:
                raise _for_commands(error) from None

        _, *own = inspect.signature(command).parameters.values()
        first, *options, _ = inspect.signature(run).parameters.values()
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature([first, *own, *options])  # type: ignore[attr-defined]
        return run

    return decorate


@keys_app.command("create")
@on_keys(changes=True)
def create_key(
    keys: "KeyClient | RedisKeys",
    tenant: Annotated[
        str,
        typer.Option(metavar="NAME", help="Owner of the key in jobs, limits, logs and usage."),
    ],
    scopes: Annotated[
        list[Scope] | None,
        typer.Option(
            help="What the key may do; may be repeated. By default inference, or everything for "
            "the first key."
        ),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--adapters",
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
    allow_lockout: LockoutOption = False,
    yes: YesOption = False,
) -> None:
    """Create an API key, and print it once. Redis stores only its digest.

    As soon as a first key exists, servers demand a key. So the command asks for confirmation before
    it creates the first one. Limits on tokens count prompts and answers. Minutes and days are those
    of the UTC clock.
    """
    limits = {
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "requests_per_day": requests_per_day,
        "tokens_per_day": tokens_per_day,
    }
    is_first = keys.is_open()
    if is_first:
        _explain_first(has_all_scopes=not scopes)
        confirm("Create the first key?", yes=yes)
    wanted = {
        "tenant": tenant,
        "scopes": scopes,
        "models": models,
        "limits": limits,
        "expires_days": expires_days,
        "allow_lockout": allow_lockout,
    }
    key = keys.create(wanted)
    print_error_line(f"key {key['id']} of {key['tenant']}; it can't be shown again:")
    print_line(key["secret"])
    if is_first:
        print_error_line("`lorikeet login URL` asks for the key, and lets your commands use it")


@keys_app.command("list")
@on_keys(changes=False)
def list_keys(keys: "KeyClient | RedisKeys") -> None:
    """List all API keys, including revoked ones. Their secrets aren't stored."""
    if found := keys.listed():
        Console().print(_key_table(found))
    else:
        print_line("the pool has no stored keys")


@keys_app.command("revoke")
@on_keys(changes=True)
def revoke_key(
    keys: "KeyClient | RedisKeys",
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the key, as in the list.")],
    allow_lockout: LockoutOption = False,
) -> None:
    """Revoke an API key. Servers refuse it within two seconds.

    The pool stays closed to requests without a key, also after the last one; `keys open` opens it.
    """
    revoked = keys.revoke(key_id, allows_lockout=allow_lockout)
    print_line(f"{revoked['id']}: revoked")


@keys_app.command("open")
@on_keys(changes=True)
def open_pool(keys: "KeyClient | RedisKeys", yes: YesOption = False) -> None:
    """Revoke all stored keys, and let the pool accept requests without a key again.

    Servers follow within two seconds. Those with keys in their settings, or with --require-keys,
    still demand a key.
    """
    valid = sum(key["state"] == "valid" for key in keys.listed())
    print_error_line(
        f"This revokes {valid:,} valid keys. Everybody who reaches the server may then use it "
        "without a key, unless its settings demand one."
    )
    confirm("Open the pool?", yes=yes)
    keys.open()
    print_line("all stored keys are revoked, and requests need none")


def _explain_first(*, has_all_scopes: bool) -> None:
    rights = "The key has all scopes, so that you can manage keys with it. " * has_all_scopes
    print_error_line(
        "The pool accepts requests without a key. Once its first key exists, the pool refuses such "
        f"requests with status 401.\n{rights}`lorikeet keys open` opens the pool again."
    )


def _on_server(
    context: typer.Context, url: str | None, api_key: str | None, *, changes: bool
) -> "KeyClient":
    from ops.pool_client import KeyClient  # httpx takes long to import

    server = server_of(context, url, api_key, changes=changes)
    client = KeyClient(server.url, server.api_key)
    if changes:
        server.announce()
    return client


def _in_redis(redis_url: str, pool: str | None, *, announces: bool) -> "RedisKeys":
    from ops.redis_keys import RedisKeys

    settings = read_settings(PoolSettings, {"redis_url": redis_url, "pool": pool})
    if announces:
        print_error_line(f"pool {settings.pool} in the Redis of --redis-url")
    return RedisKeys(settings)


def _for_commands(error: LorikeetError) -> LorikeetError:
    """Return the error with advice for users of commands instead of programs."""
    message = str(error).replace(LOCKOUT, "give --allow-lockout")
    if message == str(error):
        return error
    advice = message.replace(OPEN, "open the pool with `lorikeet keys open`")
    return KeysUnchanged(advice) if isinstance(error, JobFailed) else type(error)(advice)


class KeysUnchanged(LorikeetError):
    """A change of keys in Redis isn't allowed."""


def _key_table(keys: Sequence[dict[str, Any]]) -> Table:
    shown = table("id", "tenant", "scopes", "models", "limits", "state", whole=("id",))
    for key in keys:
        scopes, models = " ".join(key["scopes"]), " ".join(key["models"])
        cells = (key["id"], key["tenant"], scopes, models, _limits_text(key["limits"]), _state(key))
        shown.add_row(*map(Text, cells), style="" if key["state"] == "valid" else "dim")
    return shown


def _limits_text(limits: dict[str, int | None]) -> str:
    units = {
        "requests_per_minute": "requests/min",
        "tokens_per_minute": "tokens/min",
        "requests_per_day": "requests/day",
        "tokens_per_day": "tokens/day",
    }
    return ", ".join(f"{limits[name]:,} {unit}" for name, unit in units.items() if limits[name])


def _state(key: dict[str, Any]) -> str:
    """Return the state of a key, and since or until when it has it."""
    match key["state"]:
        case "revoked":
            return f"revoked {_minutes(key['revoked_at'])}"
        case "valid" if key["expires_at"] is not None:
            return f"valid until {_minutes(key['expires_at'])}"
        case "valid":
            return f"valid since {_minutes(key['created_at'])}"
        case state:
            return f"{state} {_minutes(key['expires_at'])}"


def _minutes(seconds: float) -> str:
    return utc_minutes(int(seconds * 1000)).removesuffix("+00:00")
