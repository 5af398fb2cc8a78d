"""Provides a probe's model and scratch folder, and prints and writes the probe's finding."""

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
    """Provide the model's folder and a scratch folder.

    If `model` is None, the demo model is used. The scratch folder is removed when the block ends.
    """
    disable_progress_bar()
    with TemporaryDirectory(prefix="lorikeet-bench-") as scratch:
        yield (model or demo_model()).absolute(), Path(scratch)


def show(finding: Finding, model: Path, results: Path) -> None:
    """Print the finding's summary lines, write the finding's files, and print the file paths."""
    console = Console()
    for line in finding.says:
        console.print(line, highlight=False, soft_wrap=True)
    write(finding, model, results)


def write(finding: Finding, model: Path, results: Path) -> None:
    """Write the finding's files, and print their paths."""
    console = Console()
    for path in write_finding(finding, model.name, results):
        console.print(f"written: {path}", highlight=False, soft_wrap=True)
