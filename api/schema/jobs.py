"""Responses of /v1/jobs."""

from typing import Any, Literal

from pydantic import Field

from api.schema.base import Body
from api.schema.chat import ChatChoice
from api.schema.completions import CompletionChoice
from api.schema.embeddings import Embedding
from api.schema.errors import ErrorDetail
from api.schema.usage import UsageBody

State = Literal["queued", "running", "done", "failed", "cancelled", "expired", "dead"]


class ListedJob(Body):
    """State of one job."""

    id: str
    object: Literal["job"] = "job"
    state: State
    model: str
    version: str = Field(description="Weights that run the job, as `name@digest`.")
    created_ms: int = Field(description="Unix time at which the request was accepted.")
    started_ms: int | None = Field(description="Unix time at which a worker last claimed the job.")
    ended_ms: int | None
    position: int | None
    """Position in the queue of its version; 1 is claimed next."""
    tries: int = Field(description="Number of times that a worker claimed the job.")
    worker: str | None
    error: ErrorDetail | None
    usage: UsageBody | None


class JobBody(ListedJob):
    """State of one job, and the fields of its answer once the job is done."""

    choices: list[ChatChoice] | list[CompletionChoice] | None
    """Answers in the format of the job's endpoint, present once the job is done."""
    data: list[Embedding] | None = None
    """Embeddings, present once a job of /v1/embeddings is done."""
    answer: dict[str, Any] | None = None
    """Answer of /v1/responses or /v1/messages in its format. Present once the job is done."""
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
    """`after` of the next page: the last job of the page, or an older one if the request has looked
    at as many jobs as it may. Also set on an empty page with a next one."""
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
