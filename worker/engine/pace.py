"""Limits the size of a step so that running streams don't stall. Policy only."""

import math
from dataclasses import dataclass, field

STRETCH = 2.0
"""Target duration of a step with prompt tokens, in multiples of a step that only decodes.

The target is higher if several prompts wait, as each of them waits for the step as well.
"""
MIN_PROMPT_TOKENS = 32
"""Prompt tokens that a step may always have, whatever its duration, so that prompts progress."""
MAX_GROWTH = 2
"""Limit of a step's prompt tokens, in multiples of the largest step so far.

The duration of larger steps would be extrapolated too far.
"""
_NEWEST_SHARE = 0.3
"""Weight of the newest observation in a moving average."""
_CONTEXT_DOUBT = 16.0
"""Context differences, in tokens, below which the slope of the cost is shrunk towards 0."""


@dataclass(frozen=True, slots=True)
class StepSize:
    """Size of a step's work."""

    num_decodes: int
    """Number of streams that decode one token each."""
    num_prompt_tokens: int
    context: float
    """Mean number of tokens before each prompt token."""


@dataclass(slots=True)
class _TokenCost:
    """Duration of a prompt token: a linear function of its context, fitted by moving averages."""

    context: float
    """Mean context, in tokens."""
    ms: float
    """Mean duration."""
    variance: float = 0.0
    """Variance of contexts."""
    covariance: float = 0.0
    """Covariance of contexts and durations."""

    def observe(self, context: float, ms: float, share: float) -> None:
        """Add an observation with weight `share`."""
        off, off_ms = context - self.context, ms - self.ms
        self.context += share * off
        self.ms += share * off_ms
        self.variance = (1 - share) * (self.variance + share * off * off)
        self.covariance = (1 - share) * (self.covariance + share * off * off_ms)

    @property
    def slope(self) -> float:
        """Milliseconds per token of context; at least 0."""
        return max(0.0, self.covariance / (self.variance + _CONTEXT_DOUBT**2))

    def at(self, context: float) -> float:
        """Return the milliseconds of a token after `context` tokens.

        The result is at least half of the mean duration, which bounds the extrapolation error.
        """
        return max(self.ms + self.slope * (context - self.context), self.ms / 2)


@dataclass(slots=True)
class Pace:
    """Estimates the duration of a step from earlier steps."""

    _decode_ms: dict[int, float] = field(default_factory=dict)
    """Mean duration of steps without prompts, by the bit length of their number of decodes."""
    _token: _TokenCost | None = None
    _most_prompt_tokens: int = 0

    def observe(self, step: StepSize, ms: float) -> None:
        """Record that `step` took `ms` milliseconds."""
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
        # The last chunk of a prompt may have few tokens, whose duration is mostly noise.
        share = _NEWEST_SHARE * min(1.0, step.num_prompt_tokens / MIN_PROMPT_TOKENS)
        self._token.observe(step.context, token_ms, share)

    def _decode_ms_of(self, num_decodes: int) -> float | None:
        """Return the mean duration of steps with about `num_decodes` decodes; None if unknown.

        Without such steps, the nearest smaller ones are used, or else the nearest larger ones.
        """
        kind = num_decodes.bit_length()
        fewer = [known for known in self._decode_ms if known <= kind]
        nearest = max(fewer) if fewer else min(self._decode_ms, default=None)
        return None if nearest is None else self._decode_ms[nearest]

    def max_tokens(self, num_decodes: int, num_prompts: int, context: int, limit: int) -> int:
        """Return the number of tokens that the next step may have.

        Args:
            num_decodes: number of streams that decode in the step.
            num_prompts: number of prompts that wait or are partly computed.
            context: computed tokens of the first of these prompts.
            limit: upper limit of the result.
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
        # On average, n / 2 of n tokens come before each of them, so n tokens take
        # n * (first + slope * n / 2).
        first, slope = self._token.at(context), self._token.slope
        return 2 * ms / (first + math.sqrt(first * first + 2 * slope * ms))
