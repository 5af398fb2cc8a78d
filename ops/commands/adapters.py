"""`lorikeet adapters`: lists adapters, and loads, replaces and unloads them on a running server."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from shared.api_keys import ADMIN, parse_keys
from shared.errors import AdapterRejected

if TYPE_CHECKING:
    from ops.adapter_client import AdapterClient

DEFAULT_URL = "http://127.0.0.1:23333"

adapters_app = typer.Typer(
    help="List the adapters of a server; load, check, replace, roll back and unload them.",
    invoke_without_command=True,
)

UrlOption = Annotated[
    str | None, typer.Option("--url", help=f"where the server is [dim]\\[{DEFAULT_URL}][/dim]")
]
_KEY_HELP = f"of the tenant {ADMIN}, by default out of LORIKEET_API_KEYS"
KeyOption = Annotated[str | None, typer.Option("--api-key", help=_KEY_HELP)]
GroupKeyOption = Annotated[
    str | None,
    typer.Option("--api-key", help=_KEY_HELP, envvar="LORIKEET_API_KEYS", show_envvar=False),
]
"""The variable counts where no command's own option is given."""
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="what clients send as `model`")]
PathArgument = Annotated[
    str, typer.Argument(metavar="PATH", help="a folder as the worker sees it, or a hub id")
]


@adapters_app.callback()
def adapters(context: typer.Context, url: UrlOption = None, api_key: GroupKeyOption = None) -> None:
    """List the adapters of a server; load, check, replace, roll back and unload them."""
    context.obj = url, api_key
    if context.invoked_subcommand is None:
        Console().print(_list(_client(context, None, None).adapters()))


@adapters_app.command()
def load(
    context: typer.Context,
    name: NameArgument,
    path: PathArgument,
    replace: Annotated[
        bool, typer.Option("--replace", help="if the name is taken, replace its weights")
    ] = False,
    url: UrlOption = None,
    api_key: KeyOption = None,
) -> None:
    """Load an adapter, so that it can be asked for at once."""
    found = _client(context, url, api_key).load(name, path, replace=replace)
    _say(f"{found['id']} is {found['version']} now, of rank {found['rank']}, {_mb(found)} MB")


@adapters_app.command()
def unload(
    context: typer.Context, name: NameArgument, url: UrlOption = None, api_key: KeyOption = None
) -> None:
    """Take no new requests for an adapter; those that wait or run are answered."""
    _client(context, url, api_key).unload(name)
    _say(f"{name} is unloaded, and gone from memory when its last request is answered")


@adapters_app.command()
def rollback(
    context: typer.Context, name: NameArgument, url: UrlOption = None, api_key: KeyOption = None
) -> None:
    """Go back to an adapter's previous version."""
    found = _client(context, url, api_key).roll_back(name)
    _say(f"{found['id']} is {found['version']} again")


@adapters_app.command()
def validate(
    context: typer.Context, path: PathArgument, url: UrlOption = None, api_key: KeyOption = None
) -> None:
    """Check whether an adapter could be loaded, without loading it."""
    found = _client(context, url, api_key).validate(path)
    Console().print(_findings(found))
    if not found["valid"]:
        raise AdapterRejected(found["error"]["message"])


def _client(context: typer.Context, url: str | None, api_key: str | None) -> "AdapterClient":
    from ops.adapter_client import AdapterClient

    group_url, group_key = context.obj
    keys = parse_keys([api_key or group_key or ""])
    admins = [key for key in keys if key.tenant == ADMIN] or list(keys)
    return AdapterClient(url or group_url or DEFAULT_URL, admins[0].secret if admins else None)


def _list(found: dict[str, Any]) -> Table | Text:
    if not (found["data"] or found["draining"]):
        return Text("no adapter is loaded; `lorikeet adapters load NAME PATH` loads one")
    table = Table(box=SIMPLE_HEAD, header_style="cyan")
    table.add_column("name", overflow="fold")
    table.add_column("version", no_wrap=True)
    for column in ("state", "rank", "MB", "requests", "last used", "workers", "source"):
        table.add_column(column, overflow="fold")
    for adapter in found["data"]:
        table.add_row(adapter["id"], *_cells(adapter, adapter["state"]))
        for version in adapter["previous"]:
            table.add_row("", *_cells(version, "previous"), style="dim")
    for version in found["draining"]:
        table.add_row("", *_cells(version, "draining"), style="dim")
    return table


def _cells(version: dict[str, Any], state: str) -> list[str]:
    holders = [holder for holder in version["workers"] if holder["tier"] == "device"]
    return [
        version["version"],
        state,
        str(version["rank"]),
        _mb(version),
        f"{version['requests']:,}",
        _ago(version["last_used_ms"]),
        str(len(holders)),
        escape(version["source"]),
    ]


def _ago(used_ms: int | None) -> str:
    if used_ms is None:
        return "-"
    seconds = max(0, int(time.time() - used_ms / 1000))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _findings(found: dict[str, Any]) -> Table:
    table = Table(show_header=False, box=None)
    ranks = ", ".join(f"{each['rank']} ({each['modules']} modules)" for each in found["ranks"])
    base = found["base"]
    rows = {
        "files": found["source"],
        "fits": f"yes, {base['version']}" if found["valid"] else f"no, not {base['version']}",
        "trained on": base["trained_on"],
        "digest": found["digest"],
        "MB": _mb(found) if found["bytes"] else None,
        "ranks": ranks,
        "tensors": f"{found['num_tensors']}, {found['num_unmatched']} of them for no module of it",
        "unmatched": "\n".join(found["unmatched"][:20]),
    }
    for name, value in rows.items():
        if value:
            table.add_row(Text(name, style="cyan"), Text(value, overflow="fold"))
    return table


def _mb(found: dict[str, Any]) -> str:
    return f"{found['bytes'] / 1e6:.1f}"


def _say(line: str) -> None:
    Console().print(Text(line), soft_wrap=True)
