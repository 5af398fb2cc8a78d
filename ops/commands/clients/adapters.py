"""`lorikeet adapters`: lists, loads, replaces and unloads the adapters of a running server."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ops.adapter_list import base_warning, mebibytes, print_list
from ops.commands.clients.client_options import AdminKeyOption, ChosenServer, UrlOption
from ops.commands.clients.on_server import on_server, remember_options, server_of
from ops.help_pages import App
from ops.terminal import facts_table, print_error_line, print_line
from shared.adapter_flags import is_hub_id
from shared.adapter_sources import is_remote
from shared.errors import AdapterRejected

if TYPE_CHECKING:
    from ops.adapter_client import AdapterClient

adapters_app = App(invoke_without_command=True)

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


def adapter_client(server: ChosenServer) -> "AdapterClient":
    """Return a client that manages the adapters of the server."""
    from ops.adapter_client import AdapterClient  # httpx takes long to import

    return AdapterClient(server.url, server.api_key)


reads_adapters = on_server(adapter_client)
changes_adapters = on_server(adapter_client, changes=True)
"""Decorators of commands whose first parameter is the client of the server's adapters."""


@adapters_app.callback()
def adapters(context: typer.Context, url: UrlOption = None, api_key: AdminKeyOption = None) -> None:
    """List the adapters of a server, or load, check, try out, pin, roll back or unload one."""
    remember_options(context, url, api_key)
    if context.invoked_subcommand is None:
        _list_all(adapter_client(server_of(context, None, None)))


@adapters_app.command("list")
@reads_adapters
def list_adapters(client: "AdapterClient") -> None:
    """List all adapters with their versions."""
    _list_all(client)


@adapters_app.command("show")
@reads_adapters
def show(client: "AdapterClient", name: NameArgument) -> None:
    """Show one adapter with its versions."""
    found = client.adapter(name)
    if "version" not in found:
        print_line(f"{name}: a worker fetches it from {found['staging']['source']}")
        return
    print_list({"data": [found], "draining": []})


@adapters_app.command()
@changes_adapters
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
    if warning := base_warning(loaded):
        print_error_line(warning)


@adapters_app.command()
@changes_adapters
def unload(client: "AdapterClient", name: NameArgument) -> None:
    """Unload an adapter. Requests that were already accepted are still answered."""
    client.unload(name)
    print_line(f"{name} is unloaded; its memory is freed after its last accepted request")


@adapters_app.command()
@changes_adapters
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
    left = client.adapter(name).get("version")
    restored = client.roll_back(name, to)
    version, previous = restored["version"], restored["previous"]
    if version == left:
        print_line(f"{restored['id']} is {version} already")
        return
    print_line(f"{restored['id']} is {version} again, instead of {left}")
    print_line(f"another rollback restores {previous[0]['version']}")


@adapters_app.command()
@changes_adapters
def release(client: "AdapterClient", name: NameArgument) -> None:
    """Release an adapter from quarantine.

    The adapter takes requests again at once. If another of its jobs dies, it is quarantined again.
    """
    print_line(f"{client.release(name)['version']} is released and takes requests again")


@adapters_app.command()
@reads_adapters
def validate(client: "AdapterClient", path: PathArgument) -> None:
    """Check whether an adapter can be loaded, without loading it."""
    findings = client.validate(absolute_source(path))
    Console().print(_findings_table(findings))
    if not findings["valid"]:
        raise AdapterRejected(findings["error"]["message"])


def _list_all(client: "AdapterClient") -> None:
    print_list(client.adapters())


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
            "trained on": _trained_on(base),
            "digest": found["digest"],
            "MiB": mebibytes(found) if found["bytes"] else None,
            "ranks": ranks,
            "tensors": f"{found['num_tensors']}, of which {found['num_unmatched']} match no module",
            "unmatched": "\n".join(found["unmatched"][:20]),
        }
    )


def _trained_on(base: dict[str, Any]) -> str | None:
    """Return the base model that the adapter names, marked if it is another one."""
    named: str | None = base["trained_on"]
    return f"{named}, not {base['name']}: check its answers" if base.get("is_other") else named
