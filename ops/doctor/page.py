"""Shows a report as text in a terminal, or as JSON for scripts."""

from collections.abc import Iterator
from dataclasses import asdict
from textwrap import wrap
from typing import Any

from rich.console import Console
from rich.text import Text

from ops.doctor.facts import Facts
from ops.doctor.report import Mark, Report, Row

_STYLES = {Mark.OK: "", Mark.HINT: "yellow", Mark.MISSING: "red"}
_SIGNS = {Mark.OK: "", Mark.HINT: "!", Mark.MISSING: "✗"}
_SIGN_WIDTH = 2
_INDENT = 22
"""Columns to the left of a value: margin, name and sign."""
_MIN_WIDTH = 20


def print_page(console: Console, report: Report) -> None:
    """Print the running server, the tables of a report, the fixes and the verdict.

    Values are wrapped between words only, so that paths and URLs can be copied.
    """
    if report.running:
        _print(console, _already_runs(report.running), Text())
    for section in report.sections:
        rows = [line for row in section.rows for line in _lines(row, console.width)]
        _print(console, Text(section.title, style="bold"), Text(), *rows, Text())
    _print(console, *_verdict(report))


def as_json(facts: Facts, report: Report) -> dict[str, Any]:
    """Return the report and its facts as JSON values. Sizes are in bytes."""
    return {
        "starts": report.starts,
        "missing": [_step(row) for row in report.missing],
        "hints": [_step(row) for row in report.hints],
        "facts": asdict(facts),
    }


def _step(row: Row) -> dict[str, str]:
    return {"name": row.name, "problem": row.value, "fix": row.fix}


def _print(console: Console, *lines: Text) -> None:
    for line in lines:
        console.print(line, soft_wrap=True)


def _already_runs(url: str) -> Text:
    return Text(
        f"A server of yours runs at {url}: its port and its data folder count as free below, its "
        "memory doesn't.",
        style="green",
    )


def _lines(row: Row, width: int) -> Iterator[Text]:
    """Yield the lines of a row. A line is wider than `width` if a single word is."""
    style = _STYLES[row.mark]
    name = Text(f"  {row.name}".ljust(_INDENT - _SIGN_WIDTH), style="dim")
    left = name + Text(_SIGNS[row.mark].ljust(_SIGN_WIDTH), style=style)
    room = max(_MIN_WIDTH, width - _INDENT)
    for line in wrap(row.value, room, break_long_words=False, break_on_hyphens=False):
        yield left + Text(line, style=style)
        left = Text(" " * _INDENT)


def _verdict(report: Report) -> Iterator[Text]:
    for row in (*report.missing, *report.hints):
        if row.fix:
            text = f"{_SIGNS[row.mark]} {row.name}: {row.fix}."
            yield Text(text, style=_STYLES[row.mark])
    if not report.starts:
        number = len(report.missing)
        problems = "problem" if number == 1 else "problems"
        yield Text(
            f"`lorikeet up` with these arguments wouldn't start: {number} {problems}, see ✗."
        )
    else:
        when = " once the running server has stopped" if report.running else ""
        yield Text(f"`lorikeet up` with these arguments would start{when}.", style="green")
