"""Findings of chaos runs for tests; by default those of a run that passes."""

import signal
from typing import Any

from ops.lab.chaos.checks.aftermath import Aftermath
from ops.lab.chaos.checks.ledger import seen_sum
from ops.lab.chaos.cluster.supervised import ProcessEnd
from ops.lab.chaos.faults.fault import FaultRecord
from ops.lab.chaos.load.record import Outcome, Record
from ops.lab.chaos.options import Options
from ops.lab.chaos.report.run_report import Findings
from shared.store.access.ledger import Used

OPTIONS = Options(
    minutes=1,
    streams=1,
    adapters=1,
    workers=1,
    apis=1,
    durability="strict",
    seed=1,
    faults=("kill-worker",),
    each=1,
    step_ms=100,
    retain_s=300,
)


def fault(**changes: Any) -> FaultRecord:
    fields: dict[str, Any] = {
        "kind": "kill-worker",
        "subject": "worker",
        "target": "worker-0",
        "injected_s": 110.0,
        "evidence": "ended by SIGKILL",
        "healed_s": 110.1,
        "recovered_s": 112.0,
        "error": "",
    }
    return FaultRecord(**{**fields, **changes})


def record(**changes: Any) -> Record:
    """Record of a stream with a part each 100 ms."""
    fields: dict[str, Any] = {
        "key": "chaos-1-0-1",
        "manner": "stream",
        "is_stream": True,
        "sent_s": 105.0,
        "ended_s": 107.0,
        "jobs": ["j1"],
        "outcome": Outcome.ANSWERED,
        "arrivals_ms": list(range(100, 2100, 100)),
        "num_chars": [8] * 20,
        "usage": [5, 20],
    }
    return Record(**{**fields, **changes})


def aftermath(**changes: Any) -> Aftermath:
    fields: dict[str, Any] = {
        "is_idle": True,
        "totals": {"done": 1, "dead": 0},
        "retried": 0,
        "released": 0,
        "workers_lost": 1,
        "dead": (),
        "stray_keys": (),
        "stuck_keys": (),
        "ledger": seen_sum([record()], {}),
    }
    return Aftermath(**{**fields, **changes})


def findings(**changes: Any) -> Findings:
    fields: dict[str, Any] = {
        "started_s": 100.0,
        "ended_s": 160.0,
        "faults": [fault()],
        "records": [record()],
        "ends": [ProcessEnd("worker-0", 110.05, -signal.SIGKILL)],
        "aftermath": aftermath(),
        "jobs": frozenset(["j1"]),
        "num_diverged": 0,
        "cancelled": {},
        "ledger_before": Used(),
    }
    if "aftermath" not in changes:
        fields["aftermath"] = aftermath(ledger=seen_sum(changes.get("records", [record()]), {}))
    return Findings(**{**fields, **changes})
