"""`lorikeet adapters`: lists, loads, replaces and unloads the adapters of a running server."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ops.commands.client_options import (
    DEFAULT_URL,
    KEYS_VARIABLE,
    URL_OPTION,
    api_key_option,
)
from ops.commands.flags import settings_flags
from ops.commands.pool import Pool, on_pool
from ops.commands.terminal import print_line
from shared.api_keys import ADMIN, parse_keys
from shared.errors import AdapterRejected, ErrorCode, JobError, JobFailed
from shared.protocol.ids import AdapterVersion
from shared.settings import PoolSettings

if TYPE_CHECKING:
    from ops.adapter_client import AdapterClient

adapters_app = typer.Typer(invoke_without_command=True)

KEY_HELP = (
    f"API key of the tenant `{ADMIN}`. By default the first such key in {KEYS_VARIABLE}, or the "
    "first key if there is none."
)
GivenUrlOption = Annotated[str | None, URL_OPTION]
KeyOption = Annotated[str | None, api_key_option(KEY_HELP, reads_variable=False)]
GroupKeyOption = Annotated[str | None, api_key_option(KEY_HELP)]
"""Option `--api-key` of the command group.

Only the group reads `LORIKEET_API_KEYS`. If subcommands also read this variable, its value would
override a key that the command line gives before the subcommand.
"""
NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Name that clients send as `model`.")
]
PathArgument = Annotated[
    str,
    typer.Argument(metavar="PATH", help="Adapter folder, as seen by the worker, or a hub id."),
]


@adapters_app.callback()
def adapters(
    context: typer.Context, url: GivenUrlOption = None, api_key: GroupKeyOption = None
) -> None:
    """List the adapters of a server, or load, check, replace, roll back or unload one."""
    context.obj = url, api_key
    if context.invoked_subcommand is None:
        Console().print(_list(_client(context, None, None).adapters()))


@adapters_app.command()
def load(
    context: typer.Context,
    name: NameArgument,
    path: PathArgument,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the adapter that has this name.")
    ] = False,
    url: GivenUrlOption = None,
    api_key: KeyOption = None,
) -> None:
    """Load an adapter. Clients can request it as soon as the command returns."""
    loaded = _client(context, url, api_key).load(name, path, replace=replace)
    print_line(
        f"loaded {loaded['id']} as {loaded['version']}: rank {loaded['rank']}, {_mb(loaded)} MB"
    )


@adapters_app.command()
def unload(
    context: typer.Context,
    name: NameArgument,
    url: GivenUrlOption = None,
    api_key: KeyOption = None,
) -> None:
    """Unload an adapter. Requests that were already accepted are still answered."""
    _client(context, url, api_key).unload(name)
    print_line(f"{name} is unloaded; its memory is freed after its last accepted request")


@adapters_app.command()
def rollback(
    context: typer.Context,
    name: NameArgument,
    url: GivenUrlOption = None,
    api_key: KeyOption = None,
) -> None:
    """Restore the previous version of an adapter."""
    restored = _client(context, url, api_key).roll_back(name)
    print_line(f"{restored['id']} is {restored['version']} again")


@adapters_app.command()
@settings_flags(PoolSettings)
def release(name: NameArgument, **given: Any) -> None:
    """Release an adapter from quarantine. This command uses Redis, not the server.

    The adapter takes requests again at once. The next of its jobs that dies quarantines it again.
    """

    async def release_on(pool: Pool) -> AdapterVersion:
        version = await pool.registry.release_adapter(name)
        if version is None:
            message = f"no adapter {name} is loaded; `lorikeet adapters` lists the names"
            raise JobFailed(JobError(code=ErrorCode.MODEL_NOT_FOUND, message=message))
        return version

    print_line(f"{on_pool(given, release_on)} is released and takes requests again")


@adapters_app.command()
def validate(
    context: typer.Context,
    path: PathArgument,
    url: GivenUrlOption = None,
    api_key: KeyOption = None,
) -> None:
    """Check whether an adapter can be loaded, without loading it."""
    findings = _client(context, url, api_key).validate(path)
    Console().print(_findings_table(findings))
    if not findings["valid"]:
        raise AdapterRejected(findings["error"]["message"])


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


def _findings_table(found: dict[str, Any]) -> Table:
    table = Table(show_header=False, box=None)
    ranks = ", ".join(f"{each['rank']} ({each['modules']} modules)" for each in found["ranks"])
    base = found["base"]
    rows = {
        "files": found["source"],
        "fits": f"{'yes' if found['valid'] else 'no'}, base model {base['version']}",
        "trained on": base["trained_on"],
        "digest": found["digest"],
        "MB": _mb(found) if found["bytes"] else None,
        "ranks": ranks,
        "tensors": f"{found['num_tensors']}, of which {found['num_unmatched']} match no module",
        "unmatched": "\n".join(found["unmatched"][:20]),
    }
    for name, value in rows.items():
        if value:
            table.add_row(Text(name, style="cyan"), Text(value, overflow="fold"))
    return table


def _mb(found: dict[str, Any]) -> str:
    return f"{found['bytes'] / 1e6:.1f}"
