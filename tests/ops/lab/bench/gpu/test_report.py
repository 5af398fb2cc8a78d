"""The files of the `gpu` benchmark."""

import json
from dataclasses import dataclass
from pathlib import Path

from ops.lab.bench.gpu.part import PartResult
from ops.lab.bench.gpu.report import Report, markdown, progress_line


@dataclass(frozen=True)
class Row:
    trial: str
    step_ms: float
    tokens_per_s: float
    error: str | None


ROW = Row("a | b", 1.23456, 12_345.6, None)


def test_both_files_hold_all_parts_so_far(tmp_path: Path) -> None:
    report = Report(tmp_path / "new", "today", {"date": "2026-11-28"}, ["one card"])
    for name in ("first", "second"):
        report.add(PartResult(name, name.title(), [ROW]))
        data = json.loads(report.data.read_text())
        assert list(data) == ["date", "says", "figures"]
        assert data["figures"][name]["rows"][0]["step_ms"] == 1.23456
        assert report.tables.read_text() == report.text
    assert list(data["figures"]) == ["first", "second"]
    assert report.text.startswith("one card\n\n## First (0 s)\n")


def test_a_table_shows_rounded_figures() -> None:
    lines = markdown(PartResult("p", "Part", [ROW], note="failed: late")).splitlines()
    assert lines == [
        "## Part (0 s)",
        "",
        "failed: late",
        "",
        "| trial | step ms | tokens per s | error |",
        "| --- | --- | --- | --- |",
        "| a \\| b | 1.23 | 12,346 |  |",
    ]


def test_progress_is_one_line_without_empty_values() -> None:
    assert progress_line(ROW) == "trial a \\| b, step ms 1.23, tokens per s 12,346"
