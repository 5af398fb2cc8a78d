"""What the probes' commands have in common."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from ops.bench.probes.finding import Finding, write_finding
from ops.demo.model import demo_model

Numbers = Annotated[str, typer.Option(help="numbers, separated by commas")]


@contextmanager
def model_and_scratch(model: Path | None) -> Iterator[tuple[Path, Path]]:
    """The model's folder, and one that is gone after the block."""
    disable_progress_bar()
    with TemporaryDirectory(prefix="lorikeet-bench-") as scratch:
        yield (model or demo_model()).absolute(), Path(scratch)


def show(finding: Finding, model: Path, results: Path) -> None:
    """Print what was found, and write it."""
    console = Console()
    for line in finding.says:
        console.print(line, highlight=False, soft_wrap=True)
    write(finding, model, results)


def write(finding: Finding, model: Path, results: Path) -> None:
    """Write the files, and say where."""
    console = Console()
    for path in write_finding(finding, model.name, results):
        console.print(f"written: {path}", highlight=False, soft_wrap=True)
