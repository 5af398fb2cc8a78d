"""Writes the result of a run with hostile clients, in the form of the benchmarks' results."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console

from ops.json_files import write_json
from ops.lab.machine import this_machine


def figures_of(report: Any) -> dict[str, Any]:
    """Return the fields of a dataclass. It replaces `asdict`, which can't copy counters."""
    return {each.name: getattr(report, each.name) for each in fields(report)}


def conclude(
    console: Console,
    kind: str,
    figures: Mapping[str, Any],
    says: Sequence[str],
    *,
    folder: Path | None,
    has_failed: bool,
) -> NoReturn:
    """Print the findings, write the result to `folder` unless it is None, and exit.

    Raises:
        typer.Exit: always, with status 1 if the run has failed.
    """
    for line in says:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    if folder is not None:
        path = write_result(folder, kind, figures, says)
        console.print(f"written: {path}", highlight=False, soft_wrap=True, markup=False)
    raise typer.Exit(1 if has_failed else 0)


def write_result(folder: Path, kind: str, figures: Mapping[str, Any], says: Sequence[str]) -> Path:
    """Write figures as a JSON file, and return its path. `says` has the findings as sentences."""
    machine, now = this_machine(), datetime.now(UTC)
    path = folder / f"{now:%Y-%m-%d}-{machine.commit}-{kind}.json"
    head = {"date": now.isoformat(timespec="seconds"), "machine": machine, "says": says}
    write_json({**head, **figures}, path)
    return path
