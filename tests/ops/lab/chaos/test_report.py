"""The verdict of a chaos run, what it checks, the time for which faults were felt, its report."""

import math
import signal
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
from queue_support import LIMITS, make_job
from rich.console import Console

from ops.lab.chaos.checks import monitor as monitor_module
from ops.lab.chaos.checks.aftermath import Aftermath
from ops.lab.chaos.checks.explained import (
    AFTER_S,
    LOOP_ENDS,
    LOOP_S,
    loops,
    unexplained,
    unexplained_breaks,
)
from ops.lab.chaos.checks.ledger import ledger_sum, seen_sum
from ops.lab.chaos.checks.monitor import Monitor
from ops.lab.chaos.cluster.pool import Pool
from ops.lab.chaos.cluster.supervised import ProcessEnd
from ops.lab.chaos.faults.fault import FaultRecord
from ops.lab.chaos.load.record import Outcome, Record
from ops.lab.chaos.options import Options
from ops.lab.chaos.report.felt import Felt, FeltTimes, percentile
from ops.lab.chaos.report.run_report import Findings, build_report
from ops.lab.chaos.report.summary import print_summary
from ops.lab.chaos.report.verdict import MAX_SHOWN, failures_of
from ops.lab.machine import this_machine
from shared.store.access.ledger import Used
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

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
        "timeline_problems": (),
    }
    if "aftermath" not in changes:
        fields["aftermath"] = aftermath(ledger=seen_sum(changes.get("records", [record()]), {}))
    return Findings(**{**fields, **changes})


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


FRONT_END = fault(kind="kill-api", subject="front end", target="api-0")
NETWORK = fault(kind="drop-packets", subject="network", target="api-0")
RECORDS = [
    record(jobs=["a"], usage=[5, 20]),
    record(jobs=["a"], usage=[5, 20]),  # sent twice with one idempotency key
    record(jobs=["b"], usage=[1, 2]),
    record(jobs=["c"], usage=[]),  # cancelled before it ran
    record(jobs=[]),
]


@pytest.mark.parametrize(
    ("faults", "broken_s", "is_explained"),
    [
        ([FRONT_END], 111.0, True),
        ([FRONT_END], 109.9, False),
        ([FRONT_END], 112.1, False),
        ([NETWORK], 112.0 + AFTER_S, True),
        ([NETWORK], 113.0 + AFTER_S, False),
        ([fault(kind="freeze-redis", subject="Redis"), fault()], 111.0, False),
        ([fault(), FRONT_END], 111.0, True),
        ([fault(subject="front end", recovered_s=None)], 1e6, True),
        ([], 111.0, False),
    ],
)
def test_a_break_is_explained_by_a_fault_of_its_connection_at_that_time(
    faults: list, broken_s: float, is_explained: bool
) -> None:
    broken = record(client="openai for Node", broken_s=broken_s)
    assert unexplained_breaks([record(), broken], faults) == ([] if is_explained else [broken])


def test_an_end_is_explained_by_a_fault_of_the_same_process_at_that_time() -> None:
    ends = [
        ProcessEnd("worker-0", 110.5, -signal.SIGKILL),
        ProcessEnd("worker-9", 110.5, 1),
        ProcessEnd("worker-1", 110.5, 1),
        ProcessEnd("worker-0", 150.0, 1),
    ]
    assert unexplained(ends, [fault(), fault(target="link of worker-9")]) == ends[2:]


def test_a_process_that_ends_again_and_again_is_in_a_loop() -> None:
    quick = [ProcessEnd("a", i * LOOP_S / LOOP_ENDS, 1) for i in range(LOOP_ENDS)]
    slow = [ProcessEnd("b", i * LOOP_S, 1) for i in range(2 * LOOP_ENDS)]
    assert loops([*quick, *slow]) == ["a"]


def test_each_job_counts_once_and_those_that_were_not_acknowledged_count_too() -> None:
    assert seen_sum(RECORDS, {}) == Used(3, prompt_tokens=6, completion_tokens=22)
    cancelled = {"a": [0, 0], "unknown": [1, 3], "never-ran": []}
    assert seen_sum(RECORDS, cancelled) == Used(5, prompt_tokens=7, completion_tokens=25)


@pytest.mark.parametrize(
    ("entered", "is_right"),
    [
        (Used(13, 106, 60, 122), True),  # cached tokens don't count
        (Used(12, 106, 50, 122), False),
        (Used(13, 107, 50, 122), False),
        (Used(13, 106, 50, 121), False),
    ],
)
def test_the_ledger_of_a_run_equals_the_usage_of_the_answers(entered: Used, is_right: bool) -> None:
    found = findings(
        records=RECORDS,
        jobs=frozenset("abc"),
        aftermath=aftermath(ledger=entered),
        ledger_before=Used(10, 100, 50, 100),
    )
    assert any("ledger" in each for each in failures_of(found, OPTIONS)) is not is_right


async def test_the_sum_of_the_ledger_has_all_tenants_and_models(redis: Redis, keys: Keys) -> None:
    day = (await redis.time())[0] // 86_400
    for tenant in ("red", "blue"):
        await redis.sadd(keys.ledger_tenants(day), tenant)  # type: ignore[misc]
        rows = {"a": "1 2 3 4", "b": "10 20 30 40"}
        await redis.hset(keys.ledger(day, tenant), mapping=rows)  # type: ignore[misc]
    assert await ledger_sum(redis, keys) == Used(22, 44, 66, 88)


@dataclass
class PoolOfJobs:
    redis: Redis
    keys: Keys
    apis: list[Any] = field(default_factory=list)


async def test_jobs_count_once_the_pool_has_kept_them_for_a_while_or_to_the_end(
    queue: Queue, redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = Monitor(cast(Pool, PoolOfJobs(redis, keys)))
    kept, given_up, last = make_job(), make_job(), make_job()
    for job in (kept, given_up):
        await queue.enqueue(job, LIMITS)
    await monitor.sample()
    assert monitor.jobs == set()
    monkeypatch.setattr(monitor_module, "SETTLED_S", 0.0)
    await monitor.sample()
    assert monitor.jobs == {kept.id, given_up.id}
    await queue.cancel(given_up.id)
    await queue.enqueue(last, LIMITS)
    await monitor.finish()
    assert monitor.jobs == {kept.id, last.id}
