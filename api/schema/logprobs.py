"""Log-probabilities in responses.

The log-probabilities are computed before logit bias, penalties and temperature are applied.
"""

from pydantic import BaseModel, Field


class TopLogprob(BaseModel):
    """Log-probability of one candidate token at a position."""

    token: str = Field(
        description="Text of the token. Incomplete UTF-8 characters are written as U+FFFD."
    )
    logprob: float
    bytes: list[int] | None = Field(
        description="UTF-8 bytes of the token's text; null for a special token."
    )


class ContentLogprob(TopLogprob):
    """Log-probability of one token of the answer."""

    top_logprobs: list[TopLogprob] = Field(description="Most likely tokens, most likely first.")


class ChatLogprobs(BaseModel):
    """Log-probabilities of the tokens of one chat answer."""

    content: list[ContentLogprob]
    refusal: None = None


class TextLogprobs(BaseModel):
    """Log-probabilities of the tokens of one completion. All lists have the same length."""

    tokens: list[str]
    token_logprobs: list[float | None] = Field(
        description="Log-probability of each token; null for the first token of the prompt."
    )
    top_logprobs: list[dict[str, float] | None] = Field(
        description="Most likely tokens and the selected token at each position; null for the "
        "first token of the prompt."
    )
    text_offset: list[int] = Field(
        description="Number of characters of the choice's text before each token."
    )
