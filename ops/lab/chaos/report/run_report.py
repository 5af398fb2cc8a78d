"""The findings of a run, and its report, which can be stored as JSON."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ops.lab.chaos.checks.aftermath import Aftermath
from ops.lab.chaos.cluster.supervised import ProcessEnd
from ops.lab.chaos.faults.fault import FaultRecord
from ops.lab.chaos.load.record import Outcome, Record
from ops.lab.chaos.options import Options
from ops.lab.chaos.report.felt import Felt, FeltTimes, percentile
from ops.lab.machine import Machine
from shared.store.access.ledger import Used
from worker.engine_simulated.tokens import TEXT_CHARS


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Observations of a run. Times are of the monotonic clock."""

    started_s: float
    """Start of the load."""
    ended_s: float
    """Time at which the last client had its answer."""
    faults: Sequence[FaultRecord]
    records: Sequence[Record]
    ends: Sequence[ProcessEnd]
    """Ends of the pool's processes."""
    aftermath: Aftermath
    jobs: frozenset[str]
    """Ids of all jobs that the pool has settled and not cancelled; see `Monitor.jobs`."""
    num_diverged: int
    """Number of streams that ended because their continuation contradicted earlier tokens."""
    cancelled: Mapping[str, Sequence[int]]
    """Prompt and completion tokens of the cancelled jobs, by job."""
    timeline_problems: Sequence[str]
    """Differences between jobs' timelines and what workers' logs and the pool's counts say."""
    ledger_before: Used
    """Total usage in the pool's ledger before the load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KindReport:
    """Summary of all faults of one kind."""

    kind: str
    subject: str
    took_place: int
    active: int
    """Number of streams during each of these faults, summed up over the faults."""
    affected: int
    """Number of streams in `active` that the fault delayed."""
    felt_p50_s: float | None
    felt_p99_s: float | None
    felt_max_s: float | None
    """Maximum delay of the affected streams in seconds; None if none was affected.

    `felt_p50_s` and `felt_p99_s` are the median and the 99 % quantile.
    """
    recovery_s: float | None
    """Longest time from a fault's injection until its target worked as before, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """Report of one run."""

    failures: Sequence[str]
    """Reasons why the run failed; empty if it passed."""
    command: str
    began: str
    """Time of the start, in ISO 8601."""
    options: Options
    machine: Machine
    duration_s: float
    """Seconds of load."""
    faults: Sequence[FaultRecord]
    """All faults; times are in seconds since the start of the load."""
    kinds: Sequence[KindReport]
    outcomes: Mapping[str, int]
    """Number of requests, by outcome."""
    manners: Mapping[str, int]
    """Number of requests, by manner."""
    clients: Mapping[str, int]
    """Number of requests, by the client that reads their streams."""
    breaks: int
    """Number of streams of official clients that broke."""
    refusals: int
    """Number of refusals before requests were accepted."""
    resumes: int
    replays: int
    """Number of responses whose headers say that an earlier request created the job."""
    tokens: int
    """Number of tokens that clients received in streams."""
    aftermath: Aftermath
    num_diverged: int
    process_ends: Mapping[str, int]
    """Number of times that a process ended, by process and reason."""


def build_report(
    findings: Findings,
    *,
    failures: Sequence[str],
    options: Options,
    command: str,
    began: str,
    machine: Machine,
) -> RunReport:
    """Return the report that summarises a run."""
    records = findings.records
    return RunReport(
        failures=failures,
        command=command,
        began=began,
        options=options,
        machine=machine,
        duration_s=findings.ended_s - findings.started_s,
        faults=[_relative(fault, findings.started_s) for fault in findings.faults],
        kinds=kind_reports(findings, options.faults),
        outcomes=Counter({outcome.value: 0 for outcome in Outcome})
        + Counter(record.outcome.value for record in records),
        manners=Counter(record.manner for record in records),
        clients=Counter(record.client for record in records),
        breaks=sum(record.broken_s > 0 for record in records),
        refusals=sum(record.num_refusals for record in records),
        resumes=sum(record.num_resumes for record in records),
        replays=sum(record.num_replays for record in records),
        tokens=sum(sum(record.num_chars) for record in records) // TEXT_CHARS,
        aftermath=findings.aftermath,
        num_diverged=findings.num_diverged,
        process_ends=Counter(f"{end.process}: {end.reason}" for end in findings.ends),
    )


def kind_reports(findings: Findings, kinds: Sequence[str]) -> list[KindReport]:
    """Return one report per kind of fault."""
    times = FeltTimes(findings.records)
    starts = [*(fault.injected_s for fault in findings.faults[1:]), math.inf]
    felt = [
        (fault, times.of(fault, next_s))
        for fault, next_s in zip(findings.faults, starts, strict=False)
        if not fault.error
    ]
    return [_kind_report(kind, felt) for kind in kinds]


def _kind_report(kind: str, all_felt: Sequence[tuple[FaultRecord, Felt]]) -> KindReport:
    mine = [fault for fault, _ in all_felt if fault.kind == kind]
    felt = [one for fault, one in all_felt if fault.kind == kind]
    affected = sorted(each for one in felt for each in one.affected_s)
    recoveries = [f.recovered_s - f.injected_s for f in mine if f.recovered_s is not None]
    return KindReport(
        kind=kind,
        subject=mine[0].subject if mine else "",
        took_place=len(mine),
        active=sum(one.active for one in felt),
        affected=len(affected),
        felt_p50_s=percentile(affected, 0.5),
        felt_p99_s=percentile(affected, 0.99),
        felt_max_s=max(affected, default=None),
        recovery_s=max(recoveries, default=None),
    )


def _relative(fault: FaultRecord, started_s: float) -> FaultRecord:
    recovered_s = fault.recovered_s
    return replace(
        fault,
        injected_s=fault.injected_s - started_s,
        healed_s=fault.healed_s - started_s,
        recovered_s=None if recovered_s is None else recovered_s - started_s,
    )
