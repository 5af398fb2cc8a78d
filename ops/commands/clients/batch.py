"""`lorikeet batch`: runs a file of requests, and downloads the answers."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ops.commands.clients.client_options import ApiKeyOption, UrlOption, chosen_server
from ops.terminal import print_line, progress
from shared.errors import LorikeetError, SettingsError

if TYPE_CHECKING:
    from ops.batch_client import BatchClient

POLL_S = 1.0
EXIT_FAILED = 1

FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="Requests, as one JSON object per line.")
]


class InvalidInput(LorikeetError):
    """The server has refused the input of a batch."""


def batch(
    file: FileArgument,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", metavar="PATH", help="Where answers go. By default FILE.answers.jsonl."
        ),
    ] = None,
    window: Annotated[
        str, typer.Option("--window", metavar="TIME", help="Time after which requests expire.")
    ] = "24h",
) -> None:
    """Run a file of requests as a batch, and download the answers.

    The requests use idle capacity only. The command can be stopped and repeated: it then follows
    the batch that runs already, or downloads its answers. Requests that failed are written to
    FILE.failures.jsonl, and the exit status is then 1.
    """
    endpoint, server = _endpoint(file), chosen_server(url, api_key, changes=True)
    from ops.batch_client import BatchClient  # httpx takes long to import

    client = BatchClient(server.url, server.api_key)
    server.announce()
    found = client.find(file)
    started = found or client.create(file, endpoint, window)
    print_line(f"{'follows' if found else 'started'} {started['id']}")
    ended = _follow(client, started)
    _check_input(ended)
    counts = ended["request_counts"]
    print_line(f"{ended['status']}: {counts['completed']} of {counts['total']} answered")
    targets = {
        "output_file_id": output or file.with_name(f"{file.name}.answers.jsonl"),
        "error_file_id": file.with_name(f"{file.name}.failures.jsonl"),
    }
    for field, target in targets.items():
        if ended[field]:
            client.download(ended[field], target)
            print_line(f"written: {target}")
    if counts["completed"] < counts["total"]:
        raise typer.Exit(EXIT_FAILED)


def _endpoint(file: Path) -> str:
    """Return the endpoint of the file's first request, from its field `url`."""
    try:
        with file.open("rb") as lines:
            return str(json.loads(lines.readline())["url"])
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise SettingsError(
            f"{file}: the first line isn't a request with custom_id, method, url and body"
        ) from None


def _follow(client: "BatchClient", batch: dict[str, Any]) -> dict[str, Any]:
    """Show a batch's progress until it ends, even if the server restarts. Return the batch."""
    from ops.batch_client import ENDED
    from ops.server_client import Unavailable

    with progress(Console(stderr=True)) as bar:
        task = bar.add_task(batch["status"], total=None)
        while True:
            counts = batch["request_counts"]
            bar.update(
                task,
                description=batch["status"],
                completed=counts["completed"] + counts["failed"],
                total=counts["total"] or None,
            )
            if batch["status"] in ENDED:
                return batch
            time.sleep(POLL_S)
            try:
                batch = client.get(batch["id"])
            except Unavailable:
                bar.update(task, description="the server is unavailable, waiting")


def _check_input(batch: dict[str, Any]) -> None:
    if batch["status"] == "failed":
        faults = (batch["errors"] or {}).get("data", [])
        raise InvalidInput("\n".join(["the input is invalid", *map(_described, faults)]))


def _described(fault: dict[str, Any]) -> str:
    place = f"line {fault['line']}: " if fault["line"] else ""
    return f"{place}{fault['message']}"
