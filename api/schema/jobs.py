"""/v1/jobs: what is returned."""

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
    """Where a request is."""

    id: str
    object: Literal["job"] = "job"
    state: State
    model: str
    version: str = Field(description="the exact weights, name@digest")
    created_ms: int = Field(description="Unix time of its acceptance")
    started_ms: int | None = Field(description="Unix time when a worker took it last")
    ended_ms: int | None
    position: int | None = Field(description="place in the queue of its version, 1 is next")
    tries: int = Field(description="how often a worker has taken it")
    worker: str | None
    error: ErrorDetail | None
    usage: UsageBody | None
    choices: list[JobChoice] | None = Field(description="the answers, once it is done")


class CancelledJob(BaseModel):
    """What cancelling came to."""

    id: str
    object: Literal["job"] = "job"
    state: State = Field(description="running: its worker has been told to stop")
