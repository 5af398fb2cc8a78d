"""`lorikeet eval-demo`: how well the demo's adapters do what they were trained for."""

import asyncio
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from shared.api_keys import parse_keys
from shared.errors import SettingsError

if TYPE_CHECKING:
    from ops.demo.evaluate import Score


def eval_demo(
    url: Annotated[str, typer.Option(help="where the server is")] = "http://127.0.0.1:23333",
    clients: Annotated[int, typer.Option(min=1, help="requests at once")] = 32,
    most: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="of each task, by default all")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="file to write all answers to")] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG file to draw the shares into")] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            help="of the server, by default the first in LORIKEET_API_KEYS",
            envvar="LORIKEET_API_KEYS",
            show_envvar=False,
        ),
    ] = None,
) -> None:
    """Ask a running server for held-out examples of the demo: each adapter, and the base.

    All go in one mix. A request that fails ends this with 1; wrong answers don't.
    """
    if plot and importlib.util.find_spec("matplotlib") is None:
        raise SettingsError("--plot needs matplotlib: pip install matplotlib")
    keys = parse_keys([api_key or ""])
    scores = _ask(url.rstrip("/"), keys[0].secret if keys else None, clients, most)
    Console().print(_table(scores))
    if json:
        from ops.bench.json_files import write_json

        write_json(scores, json)
    if plot:
        from ops.demo.plot import write_plot

        write_plot(scores, plot)


def _ask(url: str, api_key: str | None, clients: int, most: int | None) -> "list[Score]":
    from ops.bench.progress import progress
    from ops.chat.client import Client
    from ops.demo.evaluate import evaluate, held_out_of
    from ops.demo.tasks import TASKS

    base, *adapters = asyncio.run(Client(url, api_key).models())
    if missing := TASKS.keys() - adapters:
        raise SettingsError(
            f"--url: {url} doesn't serve {', '.join(sorted(missing))}; "
            "`lorikeet up` without a model starts the demo"
        )
    tasks = list(TASKS.values())
    held_out = held_out_of(tasks, most)
    with progress(Console(stderr=True)) as bar:
        row = bar.add_task("requests", total=2 * sum(map(len, held_out.values())))
        return asyncio.run(
            evaluate(
                url,
                api_key,
                base=base,
                tasks=tasks,
                held_out=held_out,
                num_clients=clients,
                on_done=lambda: bar.advance(row),
            )
        )


def _table(scores: "Sequence[Score]") -> Table:
    table = Table("task", box=SIMPLE_HEAD)
    for header in ("held out", "base", "adapter"):
        table.add_column(header, justify="right")
    for score in scores:
        shares = (f"{share:.1%}" for share in (score.base_share, score.adapter_share))
        table.add_row(score.task, str(len(score.answers)), *shares)
    return table
