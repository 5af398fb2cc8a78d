"""Token counts of requests, and the usage of tenants."""

from typing import Literal

from pydantic import Field

from api.schema.base import Body


class PromptTokensDetails(Body):
    """Breakdown of the prompt tokens."""

    cached_tokens: int
    """Prompt tokens that were reused from an earlier request of the same tenant and adapter with
    the same prefix."""


class CompletionTokensDetails(Body):
    """Breakdown of the completion tokens."""

    reasoning_tokens: int
    """Completion tokens between the markers of reasoning."""


class UsageBody(Body):
    """Token counts of one request, summed over all its answers."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class UsageEntry(Body):
    """Usage of a group of requests. It has only the columns by which the rows are grouped."""

    day: str | None = Field(None, description="UTC day on which the requests ended.")
    tenant: str | None = None
    model: str | None = Field(None, description="Model that the requests named.")
    requests: int = Field(description="Number of requests that have ended, failed ones included.")
    prompt_tokens: int
    cached_tokens: int = Field(description="Prompt tokens that came from the prefix cache.")
    completion_tokens: int


class UsageList(Body):
    """One page of usage."""

    object: Literal["list"] = "list"
    data: list[UsageEntry]
    last_id: str | None = Field(description="`after` of the next page; null for an empty page.")
    has_more: bool
