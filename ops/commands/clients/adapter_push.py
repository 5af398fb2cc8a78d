"""`lorikeet adapters push`: sends the files of an adapter to a running server."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ops.adapter_list import mebibytes
from ops.commands.clients.adapter_versions import print_canary_commands
from ops.commands.clients.adapters import NameArgument, changes_adapters
from ops.terminal import byte_progress, print_line

if TYPE_CHECKING:
    from ops.adapter_body import AdapterBody
    from ops.adapter_client import AdapterClient

FolderArgument = Annotated[
    Path,
    typer.Argument(
        metavar="FOLDER",
        help="Folder on this machine that PEFT or a trainer has saved, or a zip archive of it. Of "
        "a trainer's checkpoints, the last one is sent.",
        show_default=False,
    ),
]
CanaryOption = Annotated[
    float | None,
    typer.Option(
        "--canary",
        metavar="N",
        min=0,
        max=100,
        help="Let the adapter answer this share of the requests, in percent, as `canary` does. "
        "Requests with the same `user` always get the same version.",
        show_default=False,
    ),
]


@changes_adapters
def push(
    client: "AdapterClient",
    name: NameArgument,
    folder: FolderArgument,
    canary: CanaryOption = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the adapter that has this name.")
    ] = False,
) -> None:
    """Send an adapter's files to the server, and load it. The workers need no access to the folder.

    The chat template and the end tokens in the folder are sent, too.
    """
    from ops.adapter_body import adapter_body
    from ops.adapter_folder import adapter_in

    if canary is not None:
        client.adapter(name)  # refuses an unknown name before anything is sent
    elif not replace:
        client.check_free(name)
    with adapter_in(folder.expanduser()) as found:
        body = adapter_body(found)
        print_line(_what(folder, found, body))
        pushed = _send(client, name, body, replace=replace, canary=canary)
    if canary is None:
        size = f"rank {pushed['rank']}, {mebibytes(pushed)} MiB"
        print_line(f"loaded {pushed['id']} as {pushed['version']}: {size}")
        return
    version = pushed["candidate"]["version"]
    print_line(f"{version} is a canary for {canary:g} % of the requests")
    print_canary_commands(name)


def _send(
    client: "AdapterClient", name: str, body: "AdapterBody", *, replace: bool, canary: float | None
) -> dict[str, Any]:
    """Send the body with a progress bar. Return the adapter."""
    with byte_progress(Console(stderr=True)) as bar:
        task = bar.add_task("sending", total=body.num_bytes)
        sent = 0

        def on_sent(num_bytes: int) -> None:
            nonlocal sent
            sent += num_bytes
            is_whole = sent == body.num_bytes
            bar.update(task, completed=sent, description="a worker checks it" if is_whole else None)

        return client.push(name, body, on_sent, replace=replace, canary=canary)


def _what(given: Path, found: Path, body: "AdapterBody") -> str:
    where = found.name if _is_checkpoint(given, found) else str(given)
    files = f", with {' and '.join(body.prompt_files)}" if body.prompt_files else ""
    return f"sending {where}: {body.num_bytes / 2**20:.1f} MiB{files}"


def _is_checkpoint(given: Path, found: Path) -> bool:
    return found.name != given.expanduser().name and found.name.startswith("checkpoint-")
