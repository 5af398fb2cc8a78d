"""What the command of a measurement provides: a model, a scratch folder, and the result files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from ops.demo.model import demo_model
from ops.lab.bench.frame.finding import Finding, write_finding


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
