"""`make bench`: measures Lorikeet and its peers (PEFT and vLLM), and prints a table."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from ops.bench.adapter_probe_commands import adapters_app
from ops.bench.compare import vllm_engine as pairs
from ops.bench.compare.comparison import Comparison
from ops.bench.compare.output import WIDTH, lines, table, write_results
from ops.bench.compare.results import Results
from ops.bench.options import RESULTS, Model, Quick, ResultsFolder, read_numbers
from ops.bench.probe_commands import probes_app
from ops.bench.probe_run import model_and_scratch, show
from ops.bench.probes.batches.commands import batches_app
from ops.bench.probes.int8.commands import int8_app
from ops.bench.probes.neighbour.commands import neighbour_app
from ops.bench.probes.speculation.commands import speculation_app
from ops.bench.progress import progress
from ops.bench.scale_commands import scale_app
from ops.bench.servers import check_vllm
from ops.demo.model import demo_model
from shared.errors import LorikeetError

CLIENTS = "1,8,32"
QUICK_CLIENTS = "32"
VLLM_VENV = Path(".venv-vllm")
"""Virtual environment that `make vllm` creates."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.add_typer(probes_app)
app.add_typer(batches_app)
app.add_typer(int8_app)
app.add_typer(neighbour_app)
app.add_typer(speculation_app)
app.add_typer(adapters_app)
app.add_typer(scale_app)


@app.callback(invoke_without_command=True)
def compare(
    context: typer.Context,
    model: Model = None,
    vllm: Annotated[
        Path | None,
        typer.Option(help="Virtual environment of vLLM, to measure vLLM too.", metavar="VENV"),
    ] = None,
    clients: Annotated[
        str | None, typer.Option(metavar="N,N", help=f"Numbers of clients. {CLIENTS} by default.")
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=1, metavar="N", help="Rounds; the table shows medians.")
    ] = 3,
    quick: Annotated[
        bool, typer.Option("--quick", help="Measure one round with 32 clients only.")
    ] = False,
    results: ResultsFolder = RESULTS,
) -> None:
    """Compare Lorikeet with PEFT and optionally vLLM on this machine.

    Stop other programs before you start the comparison.

    The commands listed below run other measurements instead of this comparison.
    """
    if context.invoked_subcommand:
        return
    numbers = read_numbers("--clients", clients or (QUICK_CLIENTS if quick else CLIENTS))
    if vllm:
        check_vllm(vllm)
    console = Console()
    disable_progress_bar()
    folder = model or demo_model()
    with TemporaryDirectory(prefix="lorikeet-bench-") as scratch, progress(console) as bar:
        bench = Comparison(folder, numbers, Path(scratch), bar, vllm_venv=vllm)
        found = bench.run(1 if quick else repeats)
    # A narrow terminal wraps lines, which is better than truncated figures.
    console.print(table(found), width=max(WIDTH, console.width), crop=False)
    for line in lines(found):
        console.print(line, highlight=False, soft_wrap=True)
    for path in write_results(found, results):
        console.print(f"written: {path}", highlight=False, soft_wrap=True)
    sys.exit(_print_errors(found, console))


@app.command("vllm-engine")
def vllm_engine(
    vllm: Annotated[
        Path, typer.Option(help="Virtual environment of vLLM.", metavar="VENV")
    ] = VLLM_VENV,
    model: Model = None,
    quick: Quick = False,
    results: ResultsFolder = RESULTS,
) -> None:
    """Compare a worker with the vLLM engine with `vllm serve` alone, in interleaved pairs."""
    check_vllm(vllm)
    sizes = pairs.QUICK if quick else pairs.FULL
    with model_and_scratch(model) as (folder, scratch):
        found = pairs.measure_vllm_engine(folder, vllm, sizes, scratch, print)
        show(pairs.vllm_engine_finding(found, sizes), folder, results)


def _print_errors(found: Results, console: Console) -> int:
    """Print each distinct error, and return the exit status: 1 if there are errors, else 0.

    Errors make the figures invalid, because the figures leave out failed requests.
    """
    errors = {
        error
        for repeat in found.repeats
        for _, report in (*repeat.lorikeet, *repeat.vllm)
        for error in report.errors
    }
    for error in sorted(errors):
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
    return 1 if errors else 0


def main() -> None:
    """Run the command that the arguments name."""
    try:
        app()
    except LorikeetError as error:
        sys.exit(f"bench: {error}")
