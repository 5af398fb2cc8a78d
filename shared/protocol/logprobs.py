"""Log probabilities of tokens."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """A token and its log probability at one position of a text."""

    token: str
    """Text of the token, with U+FFFD for incomplete characters, or the name of a special token."""
    logprob: float | None
    """Log probability in the model's own distribution; None for the first token of a prompt."""
    bytes: tuple[int, ...] | None
    """Text of the token as UTF-8, possibly part of a character; None for a special token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionLogprobs:
    """Log probabilities at one position of a text."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...]
    """Likeliest tokens, best first; `SamplingParams.logprobs` of them."""
    offset: int
    """Number of characters of the choice's text before the token."""
