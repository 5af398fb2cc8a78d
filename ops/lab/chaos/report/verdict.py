"""Decides whether a run has passed."""

from collections import Counter
from collections.abc import Iterator, Sequence

from ops.lab.chaos.checks.explained import loops, unexplained, unexplained_breaks
from ops.lab.chaos.checks.ledger import difference, seen_sum
from ops.lab.chaos.load.record import Outcome
from ops.lab.chaos.options import Options
from ops.lab.chaos.report.run_report import Findings

MAX_SHOWN = 20
"""Maximum number of failures of one kind that are listed."""


def failures_of(findings: Findings, options: Options) -> list[str]:
    """Return every reason why the run failed; none if it passed."""
    parts = (_faults, _requests, _breaks, _jobs, _timelines, _ledger, _keys, _processes)
    return [reason for part in parts for reason in part(findings, options)]


def _faults(findings: Findings, options: Options) -> Iterator[str]:
    yield from _listed(
        [
            f"{fault.kind} of {fault.target}: {fault.error}"
            for fault in findings.faults
            if fault.error
        ]
    )
    took_place = Counter(fault.kind for fault in findings.faults if fault.evidence)
    for kind in options.faults:
        if took_place[kind] < options.each:
            yield f"{kind} took place {took_place[kind]} times instead of {options.each}"


def _requests(findings: Findings, _: Options) -> Iterator[str]:
    records = findings.records
    if not any(record.outcome is Outcome.ANSWERED for record in records):
        yield "no request was answered"
    lost = [r for r in records if r.outcome is Outcome.LOST]
    yield from _listed([f"lost: {r.key} ({r.manner}, job {r.jobs}): {r.reason}" for r in lost])
    yield from _listed(
        [
            f"wrong: {r.key} ({r.manner}, job {r.jobs}): {'; '.join(r.problems)}"
            for r in records
            if r.problems
        ]
    )
    known = {job for record in records for job in record.jobs}
    orphans = sorted(findings.jobs - known)
    yield from _listed([f"job {job} belongs to no request" for job in orphans])


def _breaks(findings: Findings, _: Options) -> Iterator[str]:
    yield from _listed(
        [
            f"broke without a fault: {r.key} ({r.client}, job {r.jobs}): {r.break_reason}"
            for r in unexplained_breaks(findings.records, findings.faults)
        ]
    )


def _jobs(findings: Findings, _: Options) -> Iterator[str]:
    aftermath = findings.aftermath
    yield from _listed([f"dead letter {letter}" for letter in aftermath.dead])
    if aftermath.totals.get("dead") and not aftermath.dead:
        yield f"{aftermath.totals['dead']} jobs are dead"
    if findings.num_diverged:
        yield f"{findings.num_diverged} answers were continued with other tokens"
    if not aftermath.is_idle:
        yield "jobs were unfinished although all clients had their answers"


def _timelines(findings: Findings, _: Options) -> Iterator[str]:
    yield from _listed(findings.timeline_problems)


def _ledger(findings: Findings, _: Options) -> Iterator[str]:
    entered = difference(findings.aftermath.ledger, findings.ledger_before)
    seen = seen_sum(findings.records, findings.cancelled)
    if entered != seen:
        yield f"the ledger has {entered}, and clients have seen {seen}"


def _keys(findings: Findings, _: Options) -> Iterator[str]:
    yield from _listed([f"stray key {key}" for key in findings.aftermath.stray_keys])
    yield from _listed(
        [f"key {key} exists after the retention" for key in findings.aftermath.stuck_keys]
    )


def _processes(findings: Findings, _: Options) -> Iterator[str]:
    for end in unexplained(findings.ends, findings.faults):
        yield f"{end.process} ended without a fault: {end.reason}"
    for name in loops(findings.ends):
        yield f"{name} restarted in a loop"


def _listed(reasons: Sequence[str]) -> Iterator[str]:
    yield from reasons[:MAX_SHOWN]
    if len(reasons) > MAX_SHOWN:
        yield f"and {len(reasons) - MAX_SHOWN} more of these"
