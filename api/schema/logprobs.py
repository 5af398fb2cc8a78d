"""Log-probabilities, under the model's distribution before bias, penalties and temperature."""

from pydantic import BaseModel, Field


class TopLogprob(BaseModel):
    """A token that might have stood there."""

    token: str = Field(description="its text, with U+FFFD for parts of characters")
    logprob: float
    bytes: list[int] | None = Field(description="its text in UTF-8; null for a special token")


class ContentLogprob(TopLogprob):
    """A token of the answer."""

    top_logprobs: list[TopLogprob] = Field(description="the likeliest tokens, best first")


class ChatLogprobs(BaseModel):
    """How likely the tokens of a chat's answer were."""

    content: list[ContentLogprob]
    refusal: None = None


class TextLogprobs(BaseModel):
    """How likely the tokens of a completion were; the lists are equally long."""

    tokens: list[str]
    token_logprobs: list[float | None] = Field(description="null for a prompt's first token")
    top_logprobs: list[dict[str, float] | None] = Field(
        description="the likeliest tokens and the chosen one; null for a prompt's first token"
    )
    text_offset: list[int] = Field(description="characters of the choice's text before the token")
