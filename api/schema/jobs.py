"""Responses of /v1/jobs."""

from typing import Any, Literal

from pydantic import Field

from api.schema.base import Body
from api.schema.chat import ChatChoice
from api.schema.completions import CompletionChoice
from api.schema.embeddings import Embedding
from api.schema.errors import ErrorDetail
from api.schema.scores import Ranked, Score
from api.schema.usage import UsageBody

State = Literal["queued", "running", "done", "failed", "cancelled", "expired", "dead"]


class ListedJob(Body):
    """State of one job."""

    id: str
    object: Literal["job"] = "job"
    state: State
    tenant: str
    model: str
    version: str = Field(description="Weights that run the job, as `name@digest`.")
    created_ms: int = Field(description="Unix time at which the request was accepted.")
    started_ms: int | None = Field(description="Unix time at which a worker last claimed the job.")
    ended_ms: int | None
    created_at: float = Field(description="`created_ms` in seconds.")
    started_at: float | None = Field(description="`started_ms` in seconds.")
    ended_at: float | None = Field(description="`ended_ms` in seconds.")
    duration_s: float | None
    """Seconds from the acceptance to the end of the job, or until now if it hasn't ended."""
    position: int | None
    """Position in the queue of its version; 1 is claimed next."""
    tries: int = Field(description="Number of times that a worker claimed the job.")
    worker: str | None = Field(description="Short name of the worker that runs it, or ran it last.")
    retried_as: str | None = Field(description="Job that repeats it after a retry.")
    error: ErrorDetail | None
    usage: UsageBody | None


class JobMoment(Body):
    """One event of a job."""

    event: Literal[
        "accepted",
        "queued",
        "claimed",
        "loaded",
        "first_token",
        "worker_lost",
        "requeued",
        "cancelling",
        "completed",
        "failed",
        "cancelled",
        "dead",
        "expired",
    ]
    at: float = Field(description="Unix time.")
    worker: str | None = Field(description="Short name of the worker.")
    reason: str | None
    """For requeued: worker_lost, worker_left or released. For other events: an error code."""


class JobBody(ListedJob):
    """State of one job, and the fields of its answer once the job is done."""

    timeline: list[JobMoment] = Field(description="Events of the job, oldest first.")
    timeline_left_out: int
    """Number of events that were left out of the middle of a very long timeline."""

    choices: list[ChatChoice] | list[CompletionChoice] | None
    """Answers in the format of the job's endpoint, present once the job is done."""
    data: list[Embedding] | list[Score] | None = None
    """Embeddings or scores, present once a job of /v1/embeddings or /v1/score is done."""
    scores: list[list[float]] | None = None
    """Probabilities, present once a job of /v1/score with label_token_ids is done."""
    results: list[Ranked] | None = None
    """Sorted documents, present once a job of /v1/rerank is done."""
    answer: dict[str, Any] | list[Any] | None = None
    """Answer in the format of another API, such as /v1/responses. Present once the job is done."""
    created: int | None = Field(None, description="Present once the job is done.")
    system_fingerprint: str | None = Field(None, description="Present once the job is done.")
    weight_version: str | None = Field(None, description="Present once the job is done.")
    service_tier: str | None = None
    """Present once the job is done, if the request has a service_tier."""


class JobList(Body):
    """One page of a tenant's jobs, newest first."""

    object: Literal["list"] = "list"
    data: list[ListedJob]
    first_id: str | None = Field(description="Id of the first job of the page.")
    last_id: str | None
    """Value of `after` for the next page: the last job of this page, or an older job if the request
    has looked at as many jobs as it may. Also set if this page is empty and there is a next one."""
    has_more: bool
    """Whether there is a next page. If true, the page may be short or empty, since one request
    looks at a limited number of jobs."""


class CancelledJob(Body):
    """State of a job after a request to cancel it."""

    id: str
    object: Literal["job"] = "job"
    state: State
    """running: the worker has been asked to stop and hasn't stopped yet."""


class DeletedJob(CancelledJob):
    """State of a job after a request to delete it."""

    deleted: bool
    """true: the prompt and the answer are deleted. false: the job hadn't ended and was cancelled; a
    second request deletes it."""
