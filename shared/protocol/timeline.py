"""Timelines of jobs, in the form that `shared/store/lua/timeline.lua` writes."""

from dataclasses import dataclass
from enum import StrEnum

from shared.protocol.ids import WorkerId


class JobEvent(StrEnum):
    """Event in the life of a job. All events after CANCELLING end the job."""

    ACCEPTED = "accepted"
    """The front end has checked the request, and Redis has the job."""
    QUEUED = "queued"
    """The job waits in the queue of its adapter version."""
    CLAIMED = "claimed"
    """A worker has taken the job."""
    LOADED = "loaded"
    """The worker has the job's adapter in memory, and passes the job to the engine."""
    FIRST_TOKEN = "first_token"
    """The worker has published the first token of this claim."""
    WORKER_LOST = "worker_lost"
    """The worker was declared dead."""
    REQUEUED = "requeued"
    """The job waits again. The reason is `worker_lost`, `worker_left` or `released`."""
    CANCELLING = "cancelling"
    """The worker was asked to stop the job. The reason is an error code."""
    COMPLETED = "completed"
    FAILED = "failed"
    """The reason is an error code. The same holds for the events listed below."""
    CANCELLED = "cancelled"
    DEAD = "dead"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Moment:
    """One event of a job."""

    event: JobEvent
    at_ms: int
    """Unix time in milliseconds, on Redis' clock."""
    worker: WorkerId | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Timeline:
    """Events of a job, oldest first."""

    moments: tuple[Moment, ...] = ()
    num_left_out: int = 0
    """Number of events that were left out in the middle of a very long timeline."""


NO_TIMELINE = Timeline()
"""Timeline of a job that an earlier release has accepted."""


def decode_timeline(text: str) -> Timeline:
    """Return the timeline in a job's record. Events of later releases are left out."""
    lines = text.splitlines()
    num_left_out = int(lines.pop(0)) if lines and lines[0].isdecimal() else 0
    return Timeline(tuple(_moment(line) for line in lines if _is_known(line)), num_left_out)


def _is_known(line: str) -> bool:
    return line.split(" ")[1] in set(JobEvent)


def _moment(line: str) -> Moment:
    at_ms, event, worker, reason = line.split(" ", 3)
    wid = None if worker == "-" else WorkerId(worker)
    return Moment(JobEvent(event), int(at_ms), wid, reason or None)
