"""The verdict of a chaos run, the time for which its faults were felt, and its report."""

import math
from dataclasses import replace
from typing import Any

import pytest
from chaos_findings import OPTIONS, aftermath, fault, findings, record
from rich.console import Console

from ops.lab.chaos.cluster.supervised import ProcessEnd
from ops.lab.chaos.load.record import Outcome
from ops.lab.chaos.report.felt import Felt, FeltTimes, percentile
from ops.lab.chaos.report.run_report import build_report
from ops.lab.chaos.report.summary import print_summary
from ops.lab.chaos.report.verdict import MAX_SHOWN, failures_of
from ops.lab.machine import this_machine

NOT_DONE = fault(evidence="", error="did not take place")


def test_a_run_without_losses_passes() -> None:
    assert failures_of(findings(), OPTIONS) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"faults": []}, "kill-worker took place 0 times instead of 1"),
        ({"faults": [NOT_DONE]}, "took place 0 times"),
        ({"faults": [fault(recovered_s=None, error="recovery: not within 90 s")]}, "recovery"),
        ({"records": []}, "no request was answered"),
        ({"records": [record(), record(outcome=Outcome.LOST, reason="status 404")]}, "status 404"),
        ({"records": [record(problems=["choice 0: gap at token 5"])]}, "gap at token 5"),
        ({"records": [record(broken_s=110.5, break_reason="eof")]}, "broke without a fault"),
        ({"jobs": frozenset(["j1", "j2"])}, "job j2 belongs to no request"),
        ({"aftermath": aftermath(dead=("j1: it killed its worker",))}, "dead letter j1"),
        ({"aftermath": aftermath(totals={"dead": 1})}, "1 jobs are dead"),
        ({"aftermath": aftermath(is_idle=False)}, "unfinished"),
        ({"aftermath": aftermath(stray_keys=("{lk:main}:q:x : no owner",))}, "stray key"),
        ({"aftermath": aftermath(stuck_keys=("{lk:main}:job:j1",))}, "after the retention"),
        ({"num_diverged": 2}, "2 answers were continued with other tokens"),
        ({"ends": [ProcessEnd("worker-1", 110.05, 1)]}, "worker-1 ended without a fault"),
        ({"ends": [ProcessEnd("worker-0", 110.1 + i / 10, 1) for i in range(4)]}, "in a loop"),
    ],
)
def test_a_run_fails_if(changes: dict[str, Any], reason: str) -> None:
    assert any(reason in each for each in failures_of(findings(**changes), OPTIONS))


def test_many_failures_of_one_kind_are_cut_short() -> None:
    lost = [record(outcome=Outcome.LOST, reason="status 404") for _ in range(MAX_SHOWN + 5)]
    reasons = failures_of(findings(records=[record(), *lost]), OPTIONS)
    assert len(reasons) == MAX_SHOWN + 1
    assert reasons[-1] == "and 5 more of these"


def with_gap(start_ms: int, length_ms: int, **changes: object) -> object:
    """Record of a stream with a part each 100 ms, and one longer gap."""
    before = list(range(100, start_ms + 1, 100))
    after = [start_ms + length_ms + 100 * i for i in range(10)]
    times = [*before, *after]
    fields = {"arrivals_ms": times, "num_chars": [8] * len(times), "ended_s": 120.0}
    return record(sent_s=105.0, **{**fields, **changes})


def felt(*records: object, next_s: float = math.inf) -> Felt:
    return FeltTimes(records).of(fault(), next_s)  # type: ignore[arg-type]


def test_a_gap_during_a_fault_counts_without_the_usual_gap() -> None:
    found = felt(with_gap(4900, 3100))  # from 109.9 s on; the fault is injected at 110.0 s
    assert found.active == 1
    assert found.affected_s == (pytest.approx(3.0),)
    late = record(sent_s=110.0, ended_s=120.0, arrivals_ms=[5000, 5100], num_chars=[8, 8])
    assert felt(*[record()] * 5, late).affected_s == (pytest.approx(4.9),)  # the first part


@pytest.mark.parametrize(
    ("stream", "next_s"),
    [
        (with_gap(4900, 400), math.inf),  # too short
        (with_gap(2000, 3000), math.inf),  # it began long before the fault
        (with_gap(4900, 3100, manner="pause"), math.inf),  # the client caused it
        (with_gap(4900, 3100, is_stream=False), math.inf),
        (with_gap(6500, 3000), 111.0),  # it began after the next fault
    ],
)
def test_other_gaps_do_not_count(stream: object, next_s: float) -> None:
    assert felt(stream, next_s=next_s).affected_s == ()


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert percentile([], 0.5) is None


def test_a_report_has_the_figures_of_a_run_and_its_summary_names_them() -> None:
    lost = record(outcome=Outcome.LOST, num_refusals=2, num_resumes=1, is_stream=False)
    lost = replace(lost, arrivals_ms=[], num_chars=[])
    report = build_report(
        findings(records=[record(), lost], faults=[fault(), NOT_DONE]),
        failures=("job j1 is lost",),
        options=OPTIONS,
        command="python -m ops.lab.chaos --seed 1",
        began="2026-11-27T00:00:00+00:00",
        machine=this_machine(),
    )
    assert report.outcomes == {"answered": 1, "lost": 1}
    assert (report.refusals, report.resumes, report.tokens) == (2, 1, 20)
    assert [(kind.kind, kind.took_place) for kind in report.kinds] == [("kill-worker", 1)]
    assert report.faults[0].injected_s == 10.0
    assert report.kinds[0].recovery_s == pytest.approx(2.0)
    assert report.process_ends == {"worker-0: SIGKILL": 1}
    console = Console(record=True, width=120)
    print_summary(report, console)
    text = console.export_text()
    for part in ("1 answered", "kill-worker", "failed: job j1 is lost"):
        assert part in text
