"""Code that all measurement commands share: options, a model, a scratch folder, result files."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from ops.demo.model import demo_model
from ops.lab.bench.frame.finding import Finding, write_finding
from ops.lab.bench.frame.rounds import QUICK, Sizes

Model = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of the base model. By default the demo model."),
]
Rounds = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Rounds, each of which measures everything.")
]
Quick = Annotated[
    bool, typer.Option("--quick", help="Measure at a tiny size, to check that it works.")
]
Baseline = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Checkout of another commit, to compare with."),
]


@contextmanager
def model_and_scratch(model: Path | None = None) -> Iterator[tuple[Path, Path]]:
    """Provide the model's folder and a scratch folder.

    If `model` is None, the demo model is used.
    """
    disable_progress_bar()
    with scratch_folder() as scratch:
        yield (model or demo_model()).absolute(), scratch


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Provide a folder that is removed when the block ends."""
    with TemporaryDirectory(prefix="lorikeet-bench-") as scratch:
        yield Path(scratch)


def show(finding: Finding, model: str, results: Path) -> None:
    """Print the finding's summary lines, write its files, and print their paths."""
    console = Console()
    for line in finding.says:
        console.print(line, highlight=False, soft_wrap=True)
    for path in write_finding(finding, model, results):
        console.print(f"written: {path}", highlight=False, soft_wrap=True)


def sizes_of(full: Sizes, rounds: int | None, *, quick: bool) -> Sizes:
    """Return the sizes of a measurement: `QUICK` if `quick` is set, otherwise `full`.

    `rounds`, if given, replaces the number of rounds.
    """
    sizes = QUICK if quick else full
    return replace(sizes, rounds=rounds) if rounds else sizes
