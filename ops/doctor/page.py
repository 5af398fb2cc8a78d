"""Shows a report as tables in a terminal, or as JSON for scripts."""

from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ops.doctor.facts import Facts
from ops.doctor.report import Mark, Report, Row, Section

_STYLES = {Mark.OK: "", Mark.HINT: "yellow", Mark.MISSING: "red"}
_SIGNS = {Mark.OK: "", Mark.HINT: "!", Mark.MISSING: "✗"}


def page(report: Report) -> RenderableType:
    """Return the tables of a report, followed by the fixes and the verdict."""
    return Group(*(_table(section) for section in report.sections), *_verdict(report))


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


def _table(section: Section) -> Table:
    table = Table(
        title=section.title,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        show_header=False,
        expand=True,
    )
    table.add_column(width=16, no_wrap=True, style="dim")
    table.add_column(width=1)
    table.add_column(ratio=1, overflow="fold")
    for row in section.rows:
        style = _STYLES[row.mark]
        sign = Text(_SIGNS[row.mark], style=style)
        table.add_row(Text(row.name), sign, Text(row.value, style=style))
    return table


def _verdict(report: Report) -> list[Text]:
    lines = []
    for row in (*report.missing, *report.hints):
        style = _STYLES[row.mark]
        if row.fix:
            lines.append(Text(f"{_SIGNS[row.mark]} {row.name}: {row.fix}", style=style))
    if report.starts:
        lines.append(Text("`lorikeet up` with these arguments would start.", style="green"))
    else:
        number = len(report.missing)
        problems = "problem" if number == 1 else "problems"
        lines.append(
            Text(f"`lorikeet up` with these arguments wouldn't start: {number} {problems}, see ✗.")
        )
    return lines
