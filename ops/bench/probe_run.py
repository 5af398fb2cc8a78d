"""Runs a probe: provides its model and a scratch folder, prints and writes its finding."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from ops.bench.probes.finding import Finding, write_finding
from ops.demo.model import demo_model


@contextmanager
def model_and_scratch(model: Path | None) -> Iterator[tuple[Path, Path]]:
    """Provide the model's folder, and a scratch folder that is removed after the block."""
    disable_progress_bar()
    with TemporaryDirectory(prefix="lorikeet-bench-") as scratch:
        yield (model or demo_model()).absolute(), Path(scratch)


def show(finding: Finding, model: Path, results: Path) -> None:
    """Print the finding's lines, and write its files."""
    console = Console()
    for line in finding.says:
        console.print(line, highlight=False, soft_wrap=True)
    write(finding, model, results)


def write(finding: Finding, model: Path, results: Path) -> None:
    """Write the finding's files, and print their paths."""
    console = Console()
    for path in write_finding(finding, model.name, results):
        console.print(f"written: {path}", highlight=False, soft_wrap=True)
