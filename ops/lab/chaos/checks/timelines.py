"""Compares the timelines of jobs with the logs of workers and the counts of the pool. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import orjson

from shared.protocol.timeline import JobEvent, Timeline, decode_timeline

ENDS = {
    "done": JobEvent.COMPLETED,
    "failed": JobEvent.FAILED,
    "cancelled": JobEvent.CANCELLED,
    "expired": JobEvent.EXPIRED,
    "dead": JobEvent.DEAD,
}
"""Event of each final state."""
_BEGIN = (JobEvent.ACCEPTED, JobEvent.QUEUED)


@dataclass(frozen=True, slots=True)
class Logged:
    """What the workers of a run have logged about a job."""

    claims: set[tuple[int, str]] = field(default_factory=set)
    """Pairs of a try and the worker that claimed it."""
    ends: set[tuple[int, str]] = field(default_factory=set)
    """Pairs of a try and the state with which a worker ended it."""


def read_logs(logs: Iterable[str]) -> dict[str, Logged]:
    """Return the claims and ends in the workers' logs, by job. The logs need the level debug."""
    found: dict[str, Logged] = {}
    for line in (line for log in logs for line in log.splitlines()):
        if '"job_claimed"' not in line and '"job_ended"' not in line:
            continue
        try:
            entry = orjson.loads(line)
        except orjson.JSONDecodeError:  # the process was killed while it wrote the line
            continue
        logged = found.setdefault(entry["job_id"], Logged())
        if entry["event"] == "job_claimed":
            logged.claims.add((entry["try_"], entry["worker"]))
        elif entry["event"] == "job_ended":
            logged.ends.add((entry["try_"], entry["state"]))
    return found


def timeline_problems(
    timelines: Mapping[str, str],
    states: Mapping[str, str],
    logged: Mapping[str, Logged],
    requeued: Mapping[str, int],
) -> list[str]:
    """Return all differences between timelines and the truth.

    Args:
        timelines: the timeline of each ended job, as its record has it.
        states: the final state of each of these jobs.
        logged: what the workers have logged.
        requeued: how often jobs were requeued, by the pool's own counts: `retried` after deaths of
            workers, and `released` otherwise.
    """
    problems: list[str] = []
    if not any(each.claims for each in logged.values()):
        problems.append("the logs of the workers have no claims to compare timelines with")
    reasons: Counter[str] = Counter()
    for job, text in timelines.items():
        timeline = decode_timeline(text)
        reasons.update(_requeues(timeline))
        found = (
            *_of_frame(timeline, states[job]),
            *_of_claims(timeline),
            *_of_log(timeline, logged.get(job, Logged())),
        )
        problems += [f"timeline of job {job}: {each}" for each in found]
    for kind, expected in requeued.items():
        if reasons[kind] != expected:
            problems.append(f"timelines have {reasons[kind]} requeues, {kind}: {expected}")
    return problems


def _requeues(timeline: Timeline) -> Iterator[str]:
    for moment in timeline.moments:
        if moment.event is JobEvent.REQUEUED:
            yield "retried" if moment.reason == JobEvent.WORKER_LOST else "released"


def _of_frame(timeline: Timeline, state: str) -> Iterator[str]:
    """Check that the job begins and ends exactly once."""
    moments = timeline.moments
    if tuple(moment.event for moment in moments[:2]) != _BEGIN:
        yield "it doesn't begin with accepted and queued"
    ends = [moment.event for moment in moments if moment.event in ENDS.values()]
    if ends != [ENDS[state]] or moments[-1].event not in ENDS.values():
        yield f"its ends are {ends}, and the job is {state}"


def _of_claims(timeline: Timeline) -> Iterator[str]:
    """Check that each claim ends with exactly one requeue or end of the job, by its worker."""
    holder: str | None = None
    is_lost = False
    for moment in timeline.moments[2:]:
        if moment.event is JobEvent.CLAIMED:
            if holder is not None:
                yield f"a claim by {moment.worker} follows one by {holder}"
            holder, is_lost = moment.worker, False
        if moment.worker != holder:
            yield f"{moment.event} is by {moment.worker}, and {holder} holds the job"
        is_lost = is_lost or moment.event is JobEvent.WORKER_LOST
        if moment.event is JobEvent.REQUEUED:
            if is_lost != (moment.reason == JobEvent.WORKER_LOST):
                yield f"a requeue, {moment.reason}, doesn't fit the loss of its worker"
            holder = None


def _of_log(timeline: Timeline, logged: Logged) -> Iterator[str]:
    """Check that the timeline has every claim and every end that a worker has logged."""
    if timeline.num_left_out:
        return
    claims = [moment for moment in timeline.moments if moment.event is JobEvent.CLAIMED]
    known = {(number, claim.worker) for number, claim in enumerate(claims, 1)}
    for number, worker in sorted(logged.claims - known):
        yield f"it lacks claim {number} by {worker}"
    for number, state in sorted(logged.ends):
        last = timeline.moments[-1]
        if number != len(claims) or last.event is not ENDS[state]:
            yield f"claim {number} was ended as {state}, and it ends with {last.event}"
