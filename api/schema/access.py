"""Responses of GET /v1/usage."""

from typing import Literal

from pydantic import BaseModel, Field


class UsageEntry(BaseModel):
    """What was used. Columns by which the rows aren't grouped are left out."""

    day: str | None = Field(None, description="UTC day on which the requests ended.")
    tenant: str | None = None
    model: str | None = Field(None, description="Model that the requests named.")
    requests: int = Field(description="Number of requests that have ended, failed ones included.")
    prompt_tokens: int
    cached_tokens: int = Field(description="Prompt tokens that came from the prefix cache.")
    completion_tokens: int


class UsageList(BaseModel):
    """One page of usage."""

    object: Literal["list"] = "list"
    data: list[UsageEntry]
    last_id: str | None = Field(description="`after` of the next page; null for an empty page.")
    has_more: bool
