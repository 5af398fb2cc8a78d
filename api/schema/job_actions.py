"""Filters of jobs, and bodies of the routes that act on many jobs."""

from typing import Annotated

from pydantic import Field

from api.schema.base import Body, StrictBody
from api.schema.jobs import State
from shared.errors import ErrorCode

MAX_AGE_S = 10**9
MAX_STATES = 20
"""Maximum number of states in a filter, some of which may be the same."""


class JobFilterBody(StrictBody):
    """Filter for the jobs that a request applies to. A job must meet all conditions."""

    state: Annotated[list[State], Field(max_length=MAX_STATES, fail_fast=True)] | State | None = (
        None
    )
    """State of the jobs, or a list of states."""
    model: str | None = Field(None, max_length=1000)
    """Model that the requests named, or adapter that served them."""
    tenant: str | None = Field(None, max_length=1000)
    """Tenant of the jobs, or `*` for all tenants. Tenants other than the key's need the scope
    `admin`."""
    error_code: ErrorCode | None = Field(None, strict=False)
    """Code of the error with which the jobs ended."""
    min_age_s: float | None = Field(None, ge=0, le=MAX_AGE_S, allow_inf_nan=False)
    """Minimum number of seconds since the requests were accepted."""
    max_age_s: float | None = Field(None, ge=0, le=MAX_AGE_S, allow_inf_nan=False)
    """Maximum number of seconds since the requests were accepted."""


class JobActionRequest(JobFilterBody):
    """Body of POST /v1/jobs/cancel and /v1/jobs/retry."""

    dry_run: bool = False
    """Whether to count the jobs without changing them."""


class ActedJob(Body):
    """A job that a request for many jobs applied to, and what became of it."""

    id: str
    new_id: str | None = None
    """Id of the new job that repeats this job."""
    error: str | None = None
    """Why the job was left as it is."""


class JobActionBody(Body):
    """Outcome of a request for many jobs."""

    matched: int = Field(description="Jobs that match the filter, at most 10,000.")
    done: int
    """Jobs that were cancelled, or asked to stop, or enqueued again. 0 with `dry_run`."""
    skipped: int
    """Jobs that were left as they are. A later request may still act on them."""
    has_more: bool
    """Whether more jobs match than one request handles. Send the request again for the rest."""
    reason: str | None = None
    """Why the request ended early, for example because the queue is full."""
    jobs: list[ActedJob] = Field(description="The first 1,000 of the jobs.")
