"""Writes the results of the `gpu` benchmark as JSON and as tables, after each part."""

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ops.lab.bench.gpu.part import PartResult


class Report:
    """Results of the parts so far, in a JSON file and a Markdown file.

    Each call of `add` writes both files.
    """

    def __init__(self, folder: Path, stem: str, head: dict[str, Any], says: Sequence[str]) -> None:
        """Create the report.

        Args:
            folder: the folder of both files. It is created.
            stem: the files' name without its extension.
            head: the first fields of the JSON file.
            says: lines that describe the measurement.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.data, self.tables = folder / f"{stem}.json", folder / f"{stem}.md"
        self._head, self._says = head, list(says)
        self._results: list[PartResult] = []
        self._write()

    @property
    def text(self) -> str:
        """All results as Markdown."""
        return "\n\n".join(["\n".join(self._says), *map(markdown, self._results)]) + "\n"

    def add(self, result: PartResult) -> None:
        """Add a part's result and write the files."""
        self._results.append(result)
        self._write()

    def _write(self) -> None:
        parts = {r.name: asdict(r) for r in self._results}
        document = {**self._head, "says": self._says, "figures": parts}
        self.data.write_text(json.dumps(document, indent=2))
        self.tables.write_text(self.text)


def markdown(result: PartResult) -> str:
    """Return a part's title, its note and the table of its rows."""
    lines = [f"## {result.title} ({result.seconds:.0f} s)"]
    if result.note:
        lines += ["", result.note]
    if result.rows:
        names = [field.name.replace("_", " ") for field in fields(result.rows[0])]
        lines += ["", _line(names), _line(["---"] * len(names))]
        lines += [_line(_cells(row)) for row in result.rows]
    return "\n".join(lines)


def progress_line(row: Any) -> str:
    """Return a row as one line of names and values."""
    names = [field.name.replace("_", " ") for field in fields(row)]
    return ", ".join(f"{n} {v}" for n, v in zip(names, _cells(row), strict=True) if v)


def _cells(row: Any) -> list[str]:
    return [_cell(getattr(row, field.name)) for field in fields(row)]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value).replace("|", "\\|")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
