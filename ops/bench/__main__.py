"""`make bench`: the workload on Lorikeet and on transformers + PEFT, from nothing to a table."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from transformers.utils.logging import disable_progress_bar

from ops.bench.bench import Bench
from ops.bench.report import queue_line, table, write_results
from ops.bench.results import Results
from ops.demo.model import demo_model

RESULTS = Path(__file__).parent / "results"
CLIENTS = (1, 8, 32)
QUICK_CLIENTS = (32,)


def main(
    model: Annotated[
        Path | None, typer.Option(help="folder of the base model; by default the demo's")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="rounds; medians are shown")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="one round, 32 clients only")] = False,
    results: Annotated[Path, typer.Option(help="where the JSON file and the plot go")] = RESULTS,
) -> None:
    """Measure Lorikeet and PEFT on this machine, which should do nothing else meanwhile."""
    console = Console()
    disable_progress_bar()
    folder = model or demo_model()
    with TemporaryDirectory(prefix="lorikeet-bench-") as scratch, _progress(console) as bar:
        bench = Bench(folder, QUICK_CLIENTS if quick else CLIENTS, Path(scratch), bar)
        found = bench.run(1 if quick else repeats)
    console.print(table(found))
    console.print(queue_line(found), highlight=False)
    for path in write_results(found, results):
        console.print(f"written: {path}", highlight=False, soft_wrap=True)
    sys.exit(_print_errors(found, console))


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=console)


def _print_errors(found: Results, console: Console) -> int:
    """Print each error once; returns 1 if there are any, as the figures then count for nothing."""
    errors = {
        error
        for repeat in found.repeats
        for _, report in repeat.lorikeet
        for error in report.errors
    }
    for error in sorted(errors):
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
    return 1 if errors else 0


if __name__ == "__main__":
    typer.run(main)
