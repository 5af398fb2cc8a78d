"""Log-probabilities in responses.

They are computed before logit bias, penalties and temperature are applied.
"""

from pydantic import Field

from api.schema.base import Body

PROMPT_LOGPROBS = (
    "Present with prompt_logprobs. For each token of the prompt, the token itself and the most "
    "likely tokens, by their ids; null for the first token."
)
"""Description of the field in responses."""


class TopLogprob(Body):
    """Log-probability of one candidate token at a position."""

    token: str
    """Text of the token. Incomplete UTF-8 characters are written as U+FFFD."""
    logprob: float
    bytes: list[int] | None
    """UTF-8 bytes of the token's text; null for a special token."""


class ContentLogprob(TopLogprob):
    """Log-probability of one token of the answer."""

    top_logprobs: list[TopLogprob] = Field(description="Most likely tokens, most likely first.")


class ChatLogprobs(Body):
    """Log-probabilities of the tokens of one chat answer."""

    content: list[ContentLogprob]
    refusal: None = None


class PromptLogprob(Body):
    """Log-probability of one candidate token at a position of a prompt."""

    logprob: float
    rank: int = Field(description="1 for the most likely token of the position.")
    decoded_token: str
    """Text of the token, or the name of a special token. Incomplete UTF-8 characters are written as
    U+FFFD."""


PromptLogprobs = list[dict[str, PromptLogprob] | None]
"""Candidates at each position of a prompt by their token ids; None at the first position."""


class TextLogprobs(Body):
    """Log-probabilities of the tokens of one completion. All lists have the same length."""

    tokens: list[str]
    token_logprobs: list[float | None]
    """Log-probability of each token; null for the first token of the prompt."""
    top_logprobs: list[dict[str, float] | None]
    """Most likely tokens and the selected token at each position; null for the first token of the
    prompt."""
    text_offset: list[int]
    """Number of characters of the choice's text before each token."""
