"""`python -m ops.lab.peers NAME`: runs the client-side tests of another server against Lorikeet.

The outcomes are stored in `ops/lab/peers/outcomes/`, and `ops/docs/peers-tests.md` is written from
them. `ops/lab/peers/review.toml` explains the tests that don't pass. The command ends with status 1
if a test fails and that file doesn't explain it. Without NAME, it only writes the page.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console

from ops.lab.peers.outcomes import (
    OUTCOMES,
    Outcome,
    Verdict,
    read_review,
    store_outcomes,
    verdict_of,
)
from ops.lab.peers.page import write_page
from ops.lab.peers.sources import unpack
from ops.lab.peers.suites import SUITES
from ops.lab.peers.tests_run import run_tests
from shared.errors import LorikeetError, SettingsError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def peers(
    name: Annotated[str | None, typer.Argument(help=f"One of {', '.join(SUITES)}.")] = None,
    source: Annotated[
        Path | None, typer.Option(help="Sources: a folder, an archive or a bare Git clone.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="File of tests to run. By default all of the suite.")
    ] = None,
    results: Annotated[Path, typer.Option(help="Folder of the outcomes.")] = OUTCOMES,
    log: Annotated[Path | None, typer.Option(help="File that receives pytest's output.")] = None,
) -> None:
    """Run the client-side tests of another server against Lorikeet."""
    has_failed = False
    if name is not None:
        found = _run(name, source, only or (), log)
        store_outcomes(name, found, results)
        has_failed = _report(Console(), name, found)
    if results == OUTCOMES:
        write_page()
    raise typer.Exit(1 if has_failed else 0)


def _run(name: str, source: Path | None, only: Sequence[str], log: Path | None) -> list[Outcome]:
    if name not in SUITES:
        raise SettingsError(f"there is no suite {name}, only {', '.join(SUITES)}")
    suite = SUITES[name]
    with TemporaryDirectory(prefix="lorikeet-peers-") as scratch:
        unpack(suite, source, Path(scratch))
        return run_tests(suite, Path(scratch), only or suite.files, log)


def _report(console: Console, name: str, found: Sequence[Outcome]) -> bool:
    """Print counts by verdict, and all unexplained failures. Return whether any are unexplained."""
    reasons = read_review(name)
    verdicts = {outcome: verdict_of(outcome, reasons)[0] for outcome in found}
    counts = Counter(verdicts.values())
    lines = [", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])]
    lines += [
        f"FAILED: {outcome.test}: {outcome.line}: {outcome.error}"
        for outcome, verdict in verdicts.items()
        if verdict == Verdict.FAILED
    ]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    return counts[Verdict.FAILED] > 0


def main() -> None:
    """Run the command that the arguments name."""
    try:
        app()
    except LorikeetError as error:
        sys.exit(f"peers: {error}")


if __name__ == "__main__":
    main()
