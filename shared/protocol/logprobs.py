"""Log probabilities of tokens, as answers report them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """A token and its log probability at one position of a text."""

    token: str
    """Text of the token, or name of a special token. U+FFFD stands for an incomplete character."""
    logprob: float | None
    """Log probability in the model's unmodified distribution; None for the first token of a
    prompt."""
    bytes: tuple[int, ...] | None
    """UTF-8 bytes of the token's text; None for a special token. They may be only a part of a
    character."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionLogprobs:
    """Log probabilities at one position of a text."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...]
    """Likeliest tokens, the likeliest first. `SamplingParams.logprobs` is their number."""
    offset: int
    """Number of characters that precede the token in the choice's text."""
