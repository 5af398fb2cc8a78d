"""What calls of the queue come to."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from shared.protocol.ids import InspectionId, JobId
from shared.protocol.jobs import ClaimedJob


@dataclass(frozen=True, slots=True, kw_only=True)
class Undecodable:
    """A claimed job that this process can't read; who claimed it must end it."""

    id: JobId
    try_: int
    epoch: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a worker got."""

    jobs: tuple[ClaimedJob, ...]
    undecodable: tuple[Undecodable, ...]
    """Claimed as well: written by another version."""
    next_steal_ms: int | None
    """Time until a waiting job of another worker's adapter may be taken; None: nothing waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaped:
    """What giving up dead workers did, and how many jobs were overdue."""

    workers: int
    requeued: int
    ended: int
    expired: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a worker's jobs stand, as Redis sees it."""

    booked: int = 0
    """Jobs that Redis has booked on the worker; only a beat counts them."""
    fenced: frozenset[JobId] = frozenset()
    """Those that the worker named, and that aren't its any more: it must drop them."""
    cancelled: frozenset[JobId] = frozenset()
    """Its jobs whose clients have cancelled them."""
    num_forgotten: int = 0
    """Versions that the registry has forgotten so far; only a beat tells."""


class FinishOutcome(StrEnum):
    """What became of a `finish`."""

    OK = "ok"
    """The job has ended and its result is stored."""
    AGAIN = "again"
    """This very try had finished before: the call was repeated after a lost reply."""
    FENCED = "fenced"
    """The job belongs to another worker or try by now; nothing was written."""


class Copy(StrEnum):
    """How the copy of an adapter stands that its worker loaded although others held it."""

    NEEDED = "needed"
    """The others would hardly do without it."""
    SURPLUS = "surplus"
    """They would."""
    GONE = "gone"
    """The worker isn't among the holders any more."""
    SOLE = "sole"
    """There are no others any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """A message to a worker."""

    kind: Literal["job", "cancel", "drain", "inspect", "tidy"]
    """`tidy`: the registry has forgotten versions; only the last version's sweep sends it."""
    job: JobId | None = None
    """What to cancel."""
    inspection: InspectionId | None = None
    """What to take and answer."""
