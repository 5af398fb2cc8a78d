"""How large a step may be so that running streams don't stall. Policy only: no torch, no clock."""

import math
from dataclasses import dataclass, field

STRETCH = 2.0
"""A step that also computes a prompt takes about so many times one that only decodes.

More where further prompts wait: those wait for it, too.
"""
MIN_PROMPT_TOKENS = 32
"""Of a step, whatever that does to its time: prompts must get on."""
MAX_GROWTH = 2
"""A step has at most so many times the prompt tokens that any had before: its cost is a guess."""
_NEWEST_SHARE = 0.3
_CONTEXT_DOUBT = 16.0
"""Contexts that differ by less, in tokens, say nothing about what context costs."""


@dataclass(frozen=True, slots=True)
class StepSize:
    """What a step computes."""

    num_decodes: int
    """Streams that got one token each."""
    num_prompt_tokens: int
    context: float
    """Tokens that a prompt token has before it, at the mean."""


@dataclass(slots=True)
class _TokenCost:
    """What a prompt token costs: a line over its context, by moving averages."""

    context: float
    ms: float
    variance: float = 0.0
    """Of contexts."""
    covariance: float = 0.0
    """Of contexts and ms."""

    def observe(self, context: float, ms: float, share: float) -> None:
        """Move the averages by `share` of what is new."""
        off, off_ms = context - self.context, ms - self.ms
        self.context += share * off
        self.ms += share * off_ms
        self.variance = (1 - share) * (self.variance + share * off * off)
        self.covariance = (1 - share) * (self.covariance + share * off * off_ms)

    @property
    def slope(self) -> float:
        """Milliseconds that a further token of context costs, never less than nothing."""
        return max(0.0, self.covariance / (self.variance + _CONTEXT_DOUBT**2))

    def at(self, context: float) -> float:
        """Milliseconds of a token; half of what others cost at the least, as a line may mislead."""
        return max(self.ms + self.slope * (context - self.context), self.ms / 2)


@dataclass(slots=True)
class Pace:
    """Learns from the steps that were run how long the next one takes."""

    _decode_ms: dict[int, float] = field(default_factory=dict)
    """Of steps without prompts, by the number of bits of their decodes: moving averages."""
    _token: _TokenCost | None = None
    _most_prompt_tokens: int = 0

    def observe(self, step: StepSize, ms: float) -> None:
        """Take note of a step."""
        if step.num_prompt_tokens == 0:
            kind = step.num_decodes.bit_length()
            before = self._decode_ms.get(kind, ms)
            self._decode_ms[kind] = before + (ms - before) * _NEWEST_SHARE
            return
        self._most_prompt_tokens = max(self._most_prompt_tokens, step.num_prompt_tokens)
        decode_ms = self._decode_ms_of(step.num_decodes) or 0.0
        token_ms = (ms - decode_ms) / step.num_prompt_tokens
        if self._token is None:
            self._token = _TokenCost(step.context, token_ms)
            return
        # What is left of a prompt may be a few tokens, and their time mere chance.
        share = _NEWEST_SHARE * min(1.0, step.num_prompt_tokens / MIN_PROMPT_TOKENS)
        self._token.observe(step.context, token_ms, share)

    def _decode_ms_of(self, num_decodes: int) -> float | None:
        """Of a step with as many decodes, or else the next fewer, or else the next more."""
        kind = num_decodes.bit_length()
        fewer = [known for known in self._decode_ms if known <= kind]
        nearest = max(fewer) if fewer else min(self._decode_ms, default=None)
        return None if nearest is None else self._decode_ms[nearest]

    def max_tokens(self, num_decodes: int, num_prompts: int, context: int, limit: int) -> int:
        """Tokens of a step with `num_decodes` streams in it, at most `limit`.

        `num_prompts` wait for it or are computed in part; the first one's tokens come after
        `context` others.
        """
        decode_ms = self._decode_ms_of(num_decodes)
        if num_decodes == 0 or decode_ms is None:
            return limit
        prompt_ms = (STRETCH - 1) * decode_ms * (1 + max(0, num_prompts - 1) / num_decodes)
        allowed = min(
            self._prompt_tokens_in(prompt_ms, context),
            MAX_GROWTH * self._most_prompt_tokens,
        )
        return min(num_decodes + max(int(allowed), MIN_PROMPT_TOKENS), limit)

    def _prompt_tokens_in(self, ms: float, context: int) -> float:
        if self._token is None or self._token.ms <= 0:
            return math.inf
        # n tokens have n / 2 of themselves before them at the mean: n * (first + slope * n / 2).
        first, slope = self._token.at(context), self._token.slope
        return 2 * ms / (first + math.sqrt(first * first + 2 * slope * ms))
