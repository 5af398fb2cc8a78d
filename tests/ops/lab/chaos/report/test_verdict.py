"""A run fails for every kind of loss, and for faults that did not take place."""

from typing import Any

import pytest
from chaos_findings import OPTIONS, aftermath, fault, findings, record

from ops.lab.chaos.cluster.supervised import ProcessEnd
from ops.lab.chaos.load.record import Outcome
from ops.lab.chaos.report.verdict import MAX_SHOWN, failures_of


def test_a_run_without_losses_passes() -> None:
    assert failures_of(findings(), OPTIONS) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"faults": []}, "kill-worker took place 0 times instead of 1"),
        ({"faults": [fault(evidence="", error="did not take place")]}, "took place 0 times"),
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
