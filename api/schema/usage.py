"""Token counts, as OpenAI's clients read them."""

from pydantic import BaseModel, Field


class PromptTokensDetails(BaseModel):
    """What is known of the prompt's tokens."""

    cached_tokens: int = Field(
        description="those that an earlier request of the same adapter and tenant began with"
    )


class UsageBody(BaseModel):
    """Tokens of one request, over all its answers."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int
    prompt_tokens_details: PromptTokensDetails
