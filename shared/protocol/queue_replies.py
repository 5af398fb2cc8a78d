"""Decoded replies of the queue's Lua scripts.

A change of a script's reply needs a change here. This module also has the texts of refusals.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shared.errors import (
    DuplicateJob,
    ErrorCode,
    JobFailed,
    LorikeetError,
    ProtocolMismatch,
    QueueFull,
    RateLimited,
    ReachedLimit,
    RegistryChanged,
    failed,
)
from shared.protocol.access.rates import Rate, Unit, Window
from shared.protocol.capabilities import decode_capabilities, decode_needs, why_unserved
from shared.protocol.codec import decode_job
from shared.protocol.ids import InspectionId, JobId
from shared.protocol.jobs import ClaimedJob, Job
from shared.protocol.retry_after import retry_after_full_s
from shared.protocol.workers import WorkerMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Undecodable:
    """A claimed job that this process can't decode. The worker that claimed it must end it."""

    id: JobId
    try_: int
    claim_epoch: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Jobs that one call of `claim` took for a worker."""

    jobs: tuple[ClaimedJob, ...]
    undecodable: tuple[Undecodable, ...]
    """Claimed jobs that this process can't decode, for example jobs of another release."""
    next_steal_ms: int | None
    """Milliseconds until the worker may take a waiting job of an adapter that another worker holds;
    None if no such job waits."""
    is_parked: bool
    """Whether the worker has capacity left, but may take none of the waiting jobs."""

    @classmethod
    def of(cls, reply: Sequence[Any], claim_epoch: int) -> "Claim":
        """Decode a reply of `claim.lua` whose first item is `ok`."""
        _, next_steal_ms, is_parked, *taken = reply
        entries = [_claimed(entry, claim_epoch) for entry in taken]
        return cls(
            jobs=tuple(entry for entry in entries if isinstance(entry, ClaimedJob)),
            undecodable=tuple(entry for entry in entries if isinstance(entry, Undecodable)),
            next_steal_ms=next_steal_ms if next_steal_ms >= 0 else None,
            is_parked=bool(is_parked),
        )


def _claimed(
    entry: tuple[bytes, int, int, bytes, int, int, int], claim_epoch: int
) -> ClaimedJob | Undecodable:
    raw_id, try_, is_suspect, body, left_ms, waited_ms, token_limit = entry
    try:
        return ClaimedJob(
            job=decode_job(body),
            try_=try_,
            suspect=bool(is_suspect),
            claim_epoch=claim_epoch,
            left_ms=left_ms,
            waited_ms=waited_ms,
            token_limit=token_limit or None,
        )
    except (ProtocolMismatch, AttributeError, TypeError, KeyError, ValueError) as error:
        reason = str(error) if isinstance(error, ProtocolMismatch) else repr(error)
        job_id = JobId(raw_id.decode())
        return Undecodable(id=job_id, try_=try_, claim_epoch=claim_epoch, reason=reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaped:
    """Results of one call of `Queue.reap`."""

    workers: int
    """Number of workers that were declared dead."""
    requeued: int
    """Number of jobs of dead and leaving workers that were requeued."""
    ended: int
    """Number of jobs of dead and leaving workers that were ended instead."""
    expired: int
    """Number of jobs that were ended because they had passed their deadlines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Reply to a heartbeat or publication: the state of the worker's jobs in Redis."""

    booked: int = 0
    """Number of jobs that the worker owns. Only heartbeats set it."""
    fenced: frozenset[JobId] = frozenset()
    """Jobs that the call named, but that the worker no longer owns. The worker must drop them."""
    cancelled: frozenset[JobId] = frozenset()
    """Jobs of the worker that clients have cancelled."""
    num_forgotten: int = 0
    """Number of versions that the registry has deleted so far. Only heartbeats set it."""
    mode: WorkerMode = WorkerMode.SERVING
    """Whether the worker takes jobs. Only heartbeats set it."""
    num_lost: int = 0
    """Number of the worker's acknowledged publications that Redis has lost in a failover. Only
    publications set it."""


class FinishOutcome(StrEnum):
    """Outcome of `finish.lua`."""

    OK = "ok"
    """The job has ended and its result is stored."""
    AGAIN = "again"
    """An earlier call has already ended this try. The reply to that call may have been lost."""
    FENCED = "fenced"
    """The job belongs to another worker or try. Nothing was written."""


class ReplicaStanding(StrEnum):
    """Whether the pool needs a worker's replica of an adapter version, as in `shrink.lua`."""

    NEEDED = "needed"
    """The other holders don't have enough capacity for the version's jobs."""
    SURPLUS = "surplus"
    """The other holders have enough capacity for the version's jobs."""
    GONE = "gone"
    """The worker is no longer a holder of the version."""
    SOLE = "sole"
    """No other worker holds the version."""


class MailKind(StrEnum):
    """Kind of a message to a worker."""

    JOB = "job"
    """A job that the worker may claim was enqueued."""
    CANCEL = "cancel"
    """A client cancelled one of the worker's jobs."""
    INSPECT = "inspect"
    """A front end asks the worker to inspect an adapter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """A message to a worker."""

    kind: MailKind
    job: JobId | None = None
    """Job to cancel. Set only for CANCEL."""
    inspection: InspectionId | None = None
    """Inspection to take and answer. Set only for INSPECT."""


def _of_idempotency(reason: bytes) -> JobFailed:
    if reason == b"expired":
        message = "the earlier request with this Idempotency-Key has just expired; try again"
        return failed(ErrorCode.UNAVAILABLE, message)
    message = "another request with the same Idempotency-Key had a different body; use a new key "
    return failed(ErrorCode.IDEMPOTENCY_CONFLICT, f"{message}for a new request")


def enqueue_error(job: Job, reply: list[Any]) -> LorikeetError:
    """Return the error that corresponds to a reply of `enqueue.lua` other than `ok`."""
    match reply:
        case [b"dup", state]:
            return DuplicateJob(job.id, state.decode())
        case [b"full", limit, num_waiting, rate]:
            retry_after_s = retry_after_full_s(num_waiting, float(rate))
            return QueueFull(ReachedLimit(limit.decode()), num_waiting, retry_after_s=retry_after_s)
        case [b"revoked" | b"limited", *use]:
            return _of_key(job, use)
        case [b"conflict" | b"expired" as reason, *_]:
            return _of_idempotency(reason)
        case [b"changed"]:
            return RegistryChanged("the registry has changed since the request was admitted")
        case [b"gone"]:
            message = (
                f"the model {job.model!r} was unloaded; GET /v1/models lists the served models"
            )
            return failed(ErrorCode.MODEL_NOT_FOUND, message, "model")
        case [b"quarantined"]:
            message = (
                f"adapter {job.version} is quarantined: several of its jobs killed their workers"
            )
            return failed(ErrorCode.ADAPTER_UNAVAILABLE, message, "model")
        case [b"unserved", needs, *classes]:
            return _unserved(job, needs.decode(), [each.decode() for each in classes])
        case [b"large", max_tokens]:
            return _too_large(job, max_tokens)
    raise AssertionError(f"enqueue returned {reply!r}")


def _of_key(job: Job, reached: Sequence[Any]) -> LorikeetError:
    """Return the error for a key that has reached a limit or is no longer valid."""
    if not reached:
        message = "the API key was revoked or has expired; send another one"
        return failed(ErrorCode.INVALID_API_KEY, message)
    unit, window, limit, used, left_ms = reached
    rate = Rate(
        unit=Unit(unit.decode()),
        window=Window(window.decode()),
        limit=limit,
        used=used,
        left_ms=left_ms,
    )
    needed = job.cost if rate.unit is Unit.TOKENS else 1
    limit = f"{rate.limit:,} {rate.unit} per {rate.window}"
    if needed > rate.limit:
        message = f"Request too large for the limit of this API key: {limit}, requested "
        message += f"{needed:,}. Send a smaller one, or ask for a shorter answer with max_tokens"
        return RateLimited(message, retry_after_s=None)
    retry_after_s = math.ceil(rate.wait_ms(needed) / 1000)
    message = f"Rate limit reached for this API key: {limit}, used {rate.used:,}, requested "
    message += f"{needed:,}. Please try again in {retry_after_s}s."
    return RateLimited(message, retry_after_s=retry_after_s)


def _unserved(job: Job, needs: str, classes: Sequence[str]) -> JobFailed:
    workers = [decode_capabilities(each) for each in classes]
    is_adapter = bool(decode_needs(needs).rank)
    subject = f"{'adapter' if is_adapter else 'model'} {job.model}"
    reason = why_unserved(subject, decode_needs(needs), workers)
    # If the job has a need that only a later release knows, there is no reason.
    message = reason or f"no live worker of this pool serves {subject}: start another worker"
    if job.images:  # a 503 would be sent again
        return failed(ErrorCode.UNSUPPORTED_PARAMETER, message, "messages")
    return failed(ErrorCode.ADAPTER_UNAVAILABLE, message, "model")


def _too_large(job: Job, max_tokens: int) -> JobFailed:
    # A single answer to a single prompt fits, since it fits into the model's context.
    message = (
        f"the prompts and {job.num_choices} answers may take {job.cost} tokens, and no worker "
        f"holds more than {max_tokens} at a time; ask for fewer answers, or for shorter ones with "
        "max_tokens"
    )
    param = "prompt" if len(job.prompts) > 1 else "n"
    return failed(ErrorCode.CONTEXT_LENGTH_EXCEEDED, message, param)
