"""`lorikeet eval-demo`: measures how well the demo's adapters do their tasks."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from ops.commands.clients.client_options import (
    ApiKeyOption,
    ChosenServer,
    UrlOption,
    check_plot,
    chosen_server,
)
from ops.terminal import table
from shared.errors import SettingsError

if TYPE_CHECKING:
    from ops.demo.evaluate import Score


def eval_demo(
    url: UrlOption = None,
    clients: Annotated[
        int, typer.Option(min=1, metavar="N", help="Number of concurrent requests.")
    ] = 32,
    most: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Limit on the examples per task. All by default."),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all answers to this JSON file.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Plot the shares of right answers to this PNG file. Needs matplotlib.",
        ),
    ] = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Measure how well the demo's adapters and its base model answer held-out examples.

    The prompts for all models are sent in random order. If a request fails, the command exits with
    status 1. Wrong answers don't change the exit status.
    """
    check_plot(plot)
    scores = _ask(chosen_server(url, api_key), clients, most)
    Console().print(_table(scores))
    if json:
        from ops.json_files import write_json

        write_json(scores, json)
    if plot:
        from ops.demo.plot import write_plot

        write_plot(scores, plot)


def _ask(server: ChosenServer, clients: int, most: int | None) -> "list[Score]":
    from ops.demo.evaluate import evaluate, held_out_of
    from ops.demo.tasks import TASKS
    from ops.server_client import ServerClient
    from ops.terminal import progress

    client = ServerClient(server.url, server.api_key)
    base, *adapters = client.models()
    if missing := TASKS.keys() - adapters:
        raise SettingsError(
            f"--url: {client.url} doesn't serve {', '.join(sorted(missing))}; "
            "`lorikeet up` without a model serves the demo"
        )
    tasks = list(TASKS.values())
    held_out = held_out_of(tasks, most)
    with progress(Console(stderr=True)) as bar:
        row = bar.add_task("requests", total=2 * sum(map(len, held_out.values())))
        return asyncio.run(
            evaluate(
                client.url,
                server.api_key,
                base=base,
                tasks=tasks,
                held_out=held_out,
                num_clients=clients,
                on_done=lambda: bar.advance(row),
            )
        )


def _table(scores: "Sequence[Score]") -> Table:
    shown = table("task", "held out", "base", "adapter")
    for score in scores:
        shares = (f"{share:.1%}" for share in (score.base_share, score.adapter_share))
        shown.add_row(score.task, str(len(score.answers)), *shares)
    return shown
