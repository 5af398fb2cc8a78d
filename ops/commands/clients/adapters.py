"""`lorikeet adapters`: lists, loads, replaces and unloads the adapters of a running server."""

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ops.adapter_list import mebibytes, print_list
from ops.commands.clients.client_options import (
    DEFAULT_URL,
    KEYS_VARIABLE,
    api_key_option,
    url_option,
)
from ops.commands.flags import settings_flags
from ops.commands.pool import Pool, on_pool
from ops.help_pages import App
from ops.terminal import facts_table, print_line
from shared.adapter_flags import is_hub_id
from shared.adapter_sources import is_remote
from shared.api_keys import ADMIN, parse_keys
from shared.errors import AdapterRejected, ErrorCode, failed
from shared.protocol.ids import AdapterVersion
from shared.settings import PoolSettings

if TYPE_CHECKING:
    from ops.adapter_client import AdapterClient

adapters_app = App(invoke_without_command=True)

KEY_HELP = (
    f"API key of the tenant `{ADMIN}`. By default the first such key in {KEYS_VARIABLE}, or the "
    "first key if there is none."
)
UrlOption = Annotated[str | None, url_option(variable=None)]
KeyOption = Annotated[str | None, api_key_option(KEY_HELP, variable=None)]
GroupUrlOption = Annotated[str | None, url_option()]
GroupKeyOption = Annotated[str | None, api_key_option(KEY_HELP)]
"""Option `--api-key` of the command group.

Only the group reads `LORIKEET_API_KEYS` and `LORIKEET_URL`. If subcommands also read a variable,
its value would override an option that is given before the subcommand.
"""
NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Name that clients send as `model`.")
]
PathArgument = Annotated[
    str,
    typer.Argument(
        metavar="PATH",
        help="Folder of the adapter on the workers' machines, its hub id (ORG/REPO or "
        "ORG/REPO@REVISION) or its URL. A relative path is resolved in the current folder.",
    ),
]


@adapters_app.callback()
def adapters(
    context: typer.Context, url: GroupUrlOption = None, api_key: GroupKeyOption = None
) -> None:
    """List the adapters of a server, or load, check, try out, pin, roll back or unload one."""
    context.obj = url, api_key
    if context.invoked_subcommand is None:
        print_list(_client(context, None, None).adapters())


def on_server(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command whose first parameter is a client of the server.

    In the decorated command, the options `--url` and `--api-key` replace this parameter.
    """

    def run(
        context: typer.Context, url: UrlOption = None, api_key: KeyOption = None, **given: Any
    ) -> None:
        command(_client(context, url, api_key), **given)

    _, *own = inspect.signature(command).parameters.values()
    first, *server, _ = inspect.signature(run).parameters.values()
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature([first, *own, *server])  # type: ignore[attr-defined]
    return run


@adapters_app.command()
@on_server
def load(
    client: "AdapterClient",
    name: NameArgument,
    path: PathArgument,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the adapter that has this name.")
    ] = False,
) -> None:
    """Load an adapter. Clients can request it as soon as the command returns."""
    source = absolute_source(path)
    loaded = client.load(name, source, replace=replace)
    size = f"rank {loaded['rank']}, {mebibytes(loaded)} MiB"
    print_line(f"loaded {loaded['id']} as {loaded['version']}: {size}")


@adapters_app.command()
@on_server
def unload(client: "AdapterClient", name: NameArgument) -> None:
    """Unload an adapter. Requests that were already accepted are still answered."""
    client.unload(name)
    print_line(f"{name} is unloaded; its memory is freed after its last accepted request")


@adapters_app.command()
@on_server
def rollback(
    client: "AdapterClient",
    name: NameArgument,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="VERSION",
            help="Version to restore, as `lorikeet adapters` lists it. By default the previous "
            "one.",
        ),
    ] = None,
) -> None:
    """Restore a previous version of an adapter."""
    restored = client.roll_back(name, to)
    print_line(f"{restored['id']} is {restored['version']} again")


@adapters_app.command()
@settings_flags(PoolSettings)
def release(name: NameArgument, **given: Any) -> None:
    """Release an adapter from quarantine. This command uses Redis, not the server.

    The adapter takes requests again at once. If another of its jobs dies, it is quarantined again.
    """

    async def release_on(pool: Pool) -> AdapterVersion:
        version = await pool.registry.release_adapter(name)
        if version is None:
            message = f"no adapter {name} is loaded; `lorikeet adapters` lists the names"
            raise failed(ErrorCode.MODEL_NOT_FOUND, message)
        return version

    print_line(f"{on_pool(given, release_on)} is released and takes requests again")


@adapters_app.command()
@on_server
def validate(client: "AdapterClient", path: PathArgument) -> None:
    """Check whether an adapter can be loaded, without loading it."""
    findings = client.validate(absolute_source(path))
    Console().print(_findings_table(findings))
    if not findings["valid"]:
        raise AdapterRejected(findings["error"]["message"])


def _client(context: typer.Context, url: str | None, api_key: str | None) -> "AdapterClient":
    """Return a client for the server. A command's own options override those of its group."""
    from ops.adapter_client import AdapterClient

    group_url, group_key = context.obj
    keys = parse_keys([api_key or group_key or ""])
    admins = [key for key in keys if key.tenant == ADMIN] or list(keys)
    return AdapterClient(url or group_url or DEFAULT_URL, admins[0].secret if admins else None)


def absolute_source(given: str) -> str:
    """Return the absolute path of a folder, because a worker may have another working directory.

    URLs are returned unchanged, and so are hub ids, unless a folder with this path exists.
    """
    if is_remote(given):
        return given
    folder = Path(given).expanduser()
    is_folder = folder.is_dir() or not is_hub_id(given)
    return os.path.abspath(folder) if given and is_folder else given


def _findings_table(found: dict[str, Any]) -> Table:
    ranks = ", ".join(f"{each['rank']} ({each['modules']} modules)" for each in found["ranks"])
    base = found["base"]
    return facts_table(
        {
            "files": found["source"],
            "fits": f"{'yes' if found['valid'] else 'no'}, base model {base['version']}",
            "trained on": base["trained_on"],
            "digest": found["digest"],
            "MiB": mebibytes(found) if found["bytes"] else None,
            "ranks": ranks,
            "tensors": f"{found['num_tensors']}, of which {found['num_unmatched']} match no module",
            "unmatched": "\n".join(found["unmatched"][:20]),
        }
    )
