"""Views of jobs: the data that a job's tenant may see."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from shared.errors import JobError
from shared.protocol.answers import AnswerSpec
from shared.protocol.codec import decode_answer_spec, decode_job_error
from shared.protocol.ids import AdapterVersion, JobId, WorkerId
from shared.protocol.jobs import MAX_LEFT_MS, Endpoint, JobState
from shared.protocol.results import Usage
from shared.protocol.timeline import NO_TIMELINE, Timeline, decode_timeline

JOB_FIELDS = [
    *("state", "model", "version", "tenant", "enq", "claim", "end"),
    *("try", "owner", "error", "usage", "spec", "deadline", "lag", "timeline", "retried"),
]
"""Fields of a job's hash that its view is built from."""
WITH_REQUEST = [*JOB_FIELDS, "request"]
"""`JOB_FIELDS`, and the parts of the request that the answer repeats. They may be large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """The data of a job that its tenant may see. Times are Unix times in milliseconds."""

    id: JobId
    state: JobState
    model: str
    version: AdapterVersion
    tenant: str
    enqueued_ms: int
    started_ms: int | None
    """Time of the latest claim; None if the job was never claimed."""
    ended_ms: int | None
    position: int | None
    """Position in the queue of the job's version, from 1; None if the job isn't waiting."""
    try_: int
    worker: WorkerId | None
    """Worker that runs the job, or that ran it last; None if no worker has claimed it."""
    error: JobError | None
    usage: Usage | None
    spec: AnswerSpec
    """Format of the job's answer."""
    timeline: Timeline = NO_TIMELINE
    retried_as: JobId | None = None
    """Job that repeats this one after a retry."""
    left_ms: int = MAX_LEFT_MS
    """Milliseconds until the deadline of an unfinished job. Negative after the deadline.
    `MAX_LEFT_MS` for an ended job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """One page of a tenant's jobs."""

    jobs: Sequence[JobView] = ()
    """Matching jobs, newest first."""
    last_id: JobId | None = None
    """Job after which the next page begins: the last job of `jobs`, or the last job that the call
    read. None if the page has no job and there is no next page."""
    has_more: bool = False
    """Whether there is a next page. It may be empty."""


def job_view(
    job_id: JobId, fields: Mapping[str, Any], rank: int | None, pool_ms: int
) -> JobView | None:
    """Return the view of a job, or None if Redis has no such job.

    `fields` has the values of `JOB_FIELDS` or `WITH_REQUEST` in the job's hash. `rank` is the
    job's place in the queue of its version, from 0, or None. `pool_ms` is the current pool time.
    """
    if fields["state"] is None:
        return None
    error, usage = (orjson.loads(fields[name] or b"null") for name in ("error", "usage"))
    timeline = decode_timeline((fields["timeline"] or b"").decode())
    return JobView(
        id=job_id,
        state=JobState(fields["state"].decode()),
        model=fields["model"].decode(),
        version=AdapterVersion(fields["version"].decode()),
        tenant=fields["tenant"].decode(),
        enqueued_ms=int(fields["enq"]),
        started_ms=_int(fields["claim"]),
        ended_ms=_int(fields["end"]),
        position=rank + 1 if rank is not None else None,
        try_=int(fields["try"]),
        worker=WorkerId(fields["owner"].decode()) if fields["owner"] else last_worker(timeline),
        error=decode_job_error(error),
        usage=Usage(**usage) if usage else None,
        spec=decode_answer_spec(fields["spec"], job_id, request=fields.get("request")),
        timeline=timeline,
        retried_as=JobId(fields["retried"].decode()) if fields["retried"] else None,
        left_ms=_left_ms(fields, pool_ms),
    )


def view_of_record(raw: bytes) -> JobView:
    """Return the view of an unanswered job from its record, which outlives the job's other data."""
    record = orjson.loads(raw)
    job_id, model = JobId(record["id"]), record["model"]
    version, enqueued_ms = AdapterVersion(record["version"]), int(record["enq"])
    timeline, usage = decode_timeline(record["timeline"]), orjson.loads(record["usage"])
    return JobView(
        id=job_id,
        state=JobState(record["state"]),
        model=model,
        version=version,
        tenant=record["tenant"],
        enqueued_ms=enqueued_ms,
        started_ms=int(record["claim"]) if "claim" in record else None,
        ended_ms=int(record["end"]),
        position=None,
        try_=int(record["try"]),
        worker=last_worker(timeline),
        error=decode_job_error(orjson.loads(record["error"])),
        usage=Usage(**usage) if usage else None,
        spec=AnswerSpec(
            id=job_id,
            endpoint=Endpoint.CHAT,
            model=model,
            version=version,
            created_s=enqueued_ms // 1000,
            num_choices=1,
        ),
        timeline=timeline,
        retried_as=JobId(record["retried"]) if "retried" in record else None,
    )


def last_worker(timeline: Timeline) -> WorkerId | None:
    """Return the worker of the newest event that has one."""
    workers = (moment.worker for moment in reversed(timeline.moments) if moment.worker)
    return next(workers, None)


def _left_ms(fields: Mapping[str, Any], pool_ms: int) -> int:
    if fields["deadline"] is None:  # the job has ended
        return MAX_LEFT_MS
    return int(fields["deadline"]) - int(float(fields["lag"] or 0)) - pool_ms


def _int(raw: bytes | None) -> int | None:
    return int(raw) if raw is not None else None
