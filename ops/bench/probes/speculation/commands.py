"""The command of `python -m ops.bench` that measures forced tokens and prompt lookup."""

from typing import Annotated

import typer

from ops.bench.options import RESULTS, Numbers, ResultsFolder, count_option, read_numbers
from ops.bench.probe_run import show
from ops.bench.probes.speculation.finding import measure_speculation, speculation_finding
from ops.demo.model import demo_model

speculation_app = typer.Typer()


@speculation_app.command()
def speculation(
    streams: Numbers = "1,32",
    pairs: Annotated[int, count_option("Interleaved pairs.")] = 10,
    prompts: Annotated[int, count_option("Different prompts of each task.")] = 8,
    max_tokens: Annotated[int, count_option("Most tokens of an answer.")] = 96,
    results: ResultsFolder = RESULTS,
) -> None:
    """Compare the demo's speed with and without forced tokens and prompt lookup, engine only."""
    model = demo_model().absolute()
    found = measure_speculation(
        model,
        read_numbers("--streams", streams),
        pairs=pairs,
        prompts=prompts,
        max_tokens=max_tokens,
    )
    show(speculation_finding(found), model, results)
