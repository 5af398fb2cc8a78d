"""`lorikeet batch`: runs a file of requests, and downloads the answers."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ops.chat.client import ServerError, reason_of, server_url, uses_environment
from ops.commands.clients.client_options import DEFAULT_URL, ApiKeyOption, UrlOption, first_secret
from ops.commands.terminal import print_line
from shared.errors import SettingsError

DIGEST = "lorikeet_sha256"
"""Name in a batch's metadata of its input's digest, by which the command finds it again."""
POLL_S = 1.0
TIMEOUT_S = 60.0
"""Maximum seconds between two pieces of a reply or of an upload."""
MAX_PAGES = 50
"""Maximum number of pages of the list of batches that are searched."""
ENDED = {"completed", "failed", "expired", "cancelled"}
EXIT_FAILED = 1

FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="Requests, as one JSON object per line.")
]


def batch(
    file: FileArgument,
    url: UrlOption = DEFAULT_URL,
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
    endpoint = _endpoint(file)
    target = output or file.with_name(f"{file.name}.answers.jsonl")
    with _client(url, first_secret(api_key)) as client:
        found = _existing(client, digest := _digest(file))
        started = found or _create(client, file, endpoint, window, digest)
        verb = "follows" if found else "started"
        print_line(f"{verb} {started['id']}")
        ended = _follow(client, started)
        _check_input(ended)
        _download(client, ended["output_file_id"], target)
        failures = file.with_name(f"{file.name}.failures.jsonl")
        _download(client, ended["error_file_id"], failures)
    counts = ended["request_counts"]
    print_line(f"{ended['status']}: {counts['completed']} of {counts['total']} requests answered")
    if ended["output_file_id"]:
        print_line(f"answers: {target}")
    if ended["error_file_id"]:
        print_line(f"failures: {failures}")
    if counts["completed"] < counts["total"]:
        raise typer.Exit(EXIT_FAILED)


def _client(url: str, secret: str | None) -> httpx.Client:
    root = server_url(url)
    return httpx.Client(
        base_url=root,
        headers={"Authorization": f"Bearer {secret}"} if secret else {},
        timeout=TIMEOUT_S,
        trust_env=uses_environment(root),
    )


def _endpoint(file: Path) -> str:
    """Return the URL of the file's first request."""
    try:
        with file.open("rb") as lines:
            first = orjson.loads(lines.readline())
        url = first["url"]
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from None
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise SettingsError(
            f"{file}: the first line isn't a request with custom_id, method, url and body"
        ) from None
    return str(url)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _existing(client: httpx.Client, digest: str) -> dict[str, Any] | None:
    """Return the newest batch of the same input that wasn't cancelled, or None."""
    for batch in _batches(client):
        if (batch["metadata"] or {}).get(DIGEST) == digest:
            return batch if batch["status"] not in ("cancelled", "failed", "expired") else None
    return None


def _batches(client: httpx.Client) -> Iterator[dict[str, Any]]:
    after: dict[str, str] = {}
    for _ in range(MAX_PAGES):
        page = _call(client, "GET", "/v1/batches", params={"limit": "100", **after})
        yield from page["data"]
        if not page["has_more"]:
            return
        after = {"after": page["last_id"]}


def _create(
    client: httpx.Client, file: Path, endpoint: str, window: str, digest: str
) -> dict[str, Any]:
    with file.open("rb") as content:
        stored = _call(
            client, "POST", "/v1/files", data={"purpose": "batch"}, files={"file": content}
        )
    body = {
        "input_file_id": stored["id"],
        "endpoint": endpoint,
        "completion_window": window,
        "metadata": {DIGEST: digest},
    }
    return _call(client, "POST", "/v1/batches", json=body)


def _follow(client: httpx.Client, batch: dict[str, Any]) -> dict[str, Any]:
    """Show the progress of a batch until it has ended, also over restarts of the server."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task(batch["status"], total=None)
        while True:
            counts = batch["request_counts"]
            progress.update(
                task,
                description=batch["status"],
                completed=counts["completed"] + counts["failed"],
                total=counts["total"] or None,
            )
            if batch["status"] in ENDED:
                return batch
            time.sleep(POLL_S)
            try:
                batch = _call(client, "GET", f"/v1/batches/{batch['id']}")
            except _Unavailable:
                progress.update(task, description="the server is unavailable, waiting")


def _check_input(batch: dict[str, Any]) -> None:
    if batch["status"] != "failed":
        return
    faults = (batch["errors"] or {}).get("data", [])
    lines = [
        f"line {fault['line']}: {fault['message']}" if fault["line"] else fault["message"]
        for fault in faults
    ]
    raise ServerError("\n".join(["the input is invalid", *lines]))


def _download(client: httpx.Client, file_id: str | None, target: Path) -> None:
    """Write a file of the server, which appears as a whole."""
    if file_id is None:
        return
    partial = target.with_name(f"{target.name}.partial")
    with client.stream("GET", f"/v1/files/{file_id}/content") as response:
        if not response.is_success:
            raise ServerError(reason_of(response.status_code, response.read()))
        with partial.open("wb") as content:
            for piece in response.iter_bytes():
                content.write(piece)
    partial.replace(target)


class _Unavailable(ServerError):
    """The server can't be reached, or can't answer at present."""


def _call(client: httpx.Client, method: str, path: str, **sent: Any) -> dict[str, Any]:
    try:
        response = client.request(method, path, **sent)
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        message = f"no answer from {client.base_url}: {reason}; `lorikeet up` starts a server"
        raise _Unavailable(message) from None
    if not response.is_success:
        kind = _Unavailable if response.status_code in (429, 503) else ServerError
        raise kind(reason_of(response.status_code, response.content))
    body: dict[str, Any] = orjson.loads(response.content)
    return body
