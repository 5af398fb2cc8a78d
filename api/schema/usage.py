"""Token counts in responses, in OpenAI's format."""

from pydantic import BaseModel, Field

WEIGHT_VERSION = "Version of the model or adapter that answered: `name@digest`."


class PromptTokensDetails(BaseModel):
    """Breakdown of the prompt tokens."""

    cached_tokens: int = Field(
        description="Prompt tokens that were reused from an earlier request of the same tenant "
        "and adapter with the same prefix."
    )


class UsageBody(BaseModel):
    """Token counts of one request, summed over all its answers."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int
    prompt_tokens_details: PromptTokensDetails
