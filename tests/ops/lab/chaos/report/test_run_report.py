"""A report summarizes a run, as JSON and on the terminal."""

from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from chaos_findings import OPTIONS, fault, findings, record
from rich.console import Console

from ops.json_files import write_json
from ops.lab.chaos.load.record import Outcome
from ops.lab.chaos.report.run_report import Findings, RunReport, build_report
from ops.lab.chaos.report.summary import print_summary
from ops.lab.machine import this_machine


def report_of(found: Findings, failures: tuple[str, ...] = ()) -> RunReport:
    return build_report(
        found,
        failures=failures,
        options=OPTIONS,
        command="python -m ops.lab.chaos --seed 1",
        began="2026-11-27T00:00:00+00:00",
        machine=this_machine(),
    )


def test_requests_tokens_and_faults_are_counted() -> None:
    lost = record(outcome=Outcome.LOST, num_refusals=2, num_resumes=1, is_stream=False)
    lost = replace(lost, arrivals_ms=[], num_chars=[])
    report = report_of(findings(records=[record(), lost]))
    assert report.outcomes == {"answered": 1, "lost": 1}
    assert (report.refusals, report.resumes) == (2, 1)
    assert report.tokens == 20
    assert [(kind.kind, kind.took_place) for kind in report.kinds] == [("kill-worker", 1)]
    assert report.faults[0].injected_s == 10.0
    assert report.kinds[0].recovery_s == pytest.approx(2.0)
    assert report.process_ends == {"worker-0: SIGKILL": 1}


def test_a_fault_that_failed_is_not_counted() -> None:
    report = report_of(findings(faults=[fault(error="did not take place", evidence="")]))
    assert report.kinds[0].took_place == 0


def test_the_json_file_has_everything(tmp_path: Path) -> None:
    write_json(report_of(findings()), tmp_path / "chaos.json")
    loaded = orjson.loads((tmp_path / "chaos.json").read_bytes())
    assert loaded["options"]["seed"] == 1
    assert loaded["machine"]["commit"]
    assert loaded["faults"][0]["evidence"] == "ended by SIGKILL"


def test_the_summary_names_costs_and_failures() -> None:
    console = Console(record=True, width=120)
    print_summary(report_of(findings(), ("job j1 is lost",)), console)
    text = console.export_text()
    assert "1 answered" in text
    assert "kill-worker" in text
    assert "failed: job j1 is lost" in text
