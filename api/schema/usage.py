"""Token counts, as OpenAI's clients read them."""

from pydantic import BaseModel


class UsageBody(BaseModel):
    """Tokens of one request, over all its answers."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int
