"""Parts of the `gpu` benchmark: what ends one, what is kept of it, and the files with all."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from ops.lab.bench.gpu.launches import launches_of
from ops.lab.bench.gpu.part import NotMeasured, Part, PartResult, run_part
from ops.lab.bench.gpu.report import Report, markdown, progress_line


@dataclass(frozen=True)
class Row:
    trial: str
    step_ms: float = 1.23456
    tokens_per_s: float = 12_345.6
    error: str | None = None


ROW = Row("a | b")


def run(rows: Iterator[Row], seconds: float = 60.0) -> PartResult:
    return run_part(Part("p", "P", seconds, lambda: rows), seconds, lambda _: None)


def ending_with(error: Exception) -> Iterator[Row]:
    yield ROW
    raise error


def hanging() -> Iterator[Row]:
    yield ROW
    with suppress(Exception):  # as compilers do
        time.sleep(60)
    yield Row("never")


def test_rows_before_an_error_are_kept_and_the_error_is_named() -> None:
    result = run(ending_with(RuntimeError("out of memory\nmore")))
    assert result.rows == [ROW]
    assert result.note == "failed: RuntimeError: out of memory"
    assert result.failure is not None
    assert "ending_with" in result.failure


def test_what_cannot_be_measured_here_is_no_failure() -> None:
    result = run(ending_with(NotMeasured("it needs a GPU")))
    assert (result.note, result.failure) == ("not measured: it needs a GPU", None)


def test_a_part_is_stopped_at_the_end_of_its_time() -> None:
    handler = signal.getsignal(signal.SIGALRM)  # pytest's own limit
    result = run(hanging(), seconds=0.05)
    assert signal.getsignal(signal.SIGALRM) == handler
    assert result.rows == [ROW]
    assert result.note == "stopped after 0 s, the part's share of the time"
    assert result.seconds < 30


def test_both_files_hold_all_parts_so_far(tmp_path: Path) -> None:
    report = Report(tmp_path / "new", "today", {"date": "2026-11-28"}, ["one card"])
    for name in ("first", "second"):
        report.add(PartResult(name, name.title(), [ROW]))
        data = json.loads(report.data.read_text())
        assert data["figures"][name]["rows"][0]["step_ms"] == 1.23456
        assert report.tables.read_text() == report.text
    assert list(data["figures"]) == ["first", "second"]
    assert report.text.startswith("one card\n\n## First (0 s)\n")


def test_tables_and_progress_show_rounded_figures() -> None:
    assert markdown(PartResult("p", "Part", [ROW], note="failed: late")).splitlines() == [
        *("## Part (0 s)", "", "failed: late", ""),
        "| trial | step ms | tokens per s | error |",
        "| --- | --- | --- | --- |",
        "| a \\| b | 1.23 | 12,346 |  |",
    ]
    assert progress_line(ROW) == "trial a \\| b, step ms 1.23, tokens per s 12,346"


def test_kernels_are_told_from_copies_among_the_profilers_events() -> None:
    times_us = {
        "ampere_gemm": 500.0,
        "lora_shrink": 250.0,
        "Memcpy HtoD (Pageable -> Device)": 100.0,
        "Memcpy DtoH (Device -> Pageable)": 100.0,
        "Memcpy DtoD (Device -> Device)": 25.0,
        "Memset (Device)": 25.0,
    }
    events = [
        SimpleNamespace(name=name, time_range=SimpleNamespace(elapsed_us=lambda us=us: us))
        for name, us in times_us.items()
    ]
    found = launches_of(32, 8, events, num_syncs=3)
    assert (found.kernels, found.copies_to_device, found.copies_to_host) == (2, 1, 1)
    assert (found.other_copies, found.syncs, found.busy_ms) == (2, 3, 1.0)
