"""Responses of /v1/jobs."""

from typing import Literal

from pydantic import BaseModel, Field

from api.schema.errors import ErrorDetail
from api.schema.usage import UsageBody

State = Literal["queued", "running", "done", "failed", "cancelled", "expired", "dead"]


class JobChoice(BaseModel):
    """One answer of a finished job."""

    index: int
    text: str
    finish_reason: Literal["stop", "length"]


class JobBody(BaseModel):
    """State of one job, and its answers once it is done."""

    id: str
    object: Literal["job"] = "job"
    state: State
    model: str
    version: str = Field(description="Weights that run the job, as `name@digest`.")
    created_ms: int = Field(description="Unix time at which the request was accepted.")
    started_ms: int | None = Field(description="Unix time at which a worker last claimed the job.")
    ended_ms: int | None
    position: int | None = Field(
        description="Position in the queue of its version; 1 is claimed next."
    )
    tries: int = Field(description="Number of times that a worker claimed the job.")
    worker: str | None
    error: ErrorDetail | None
    usage: UsageBody | None
    choices: list[JobChoice] | None = Field(description="Answers, present once the job is done.")


class CancelledJob(BaseModel):
    """State of a job after a request to cancel it."""

    id: str
    object: Literal["job"] = "job"
    state: State = Field(
        description="running: the worker has been asked to stop and hasn't stopped yet."
    )
