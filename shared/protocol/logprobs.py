"""How likely a model found the tokens of a text."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """A token that stands, or might have stood, at one position."""

    token: str
    """Its text, with U+FFFD for parts of characters; the name of a special token."""
    logprob: float | None
    """Under the model's own distribution. None for the first token of a prompt."""
    bytes: tuple[int, ...] | None
    """Its text in UTF-8, which may be part of a character; None for a special token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionLogprobs:
    """One position of a text."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...]
    """The likeliest tokens, best first; as many as were asked for."""
    offset: int
    """Characters of the choice's text before the token."""
