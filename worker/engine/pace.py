"""Limits the size of a step, so that streams don't stall and memory suffices. Policy only."""

import math
from dataclasses import dataclass, field

STRETCH = 2.0
"""Target duration of a step if one prompt waits, relative to a step without prompt tokens."""
MIN_PROMPT_TOKENS = 32
"""Number of prompt tokens always allowed in a step, even beyond its target, to ensure progress."""
MAX_GROWTH = 2
"""Maximum number of prompt tokens of a step, as a multiple of the most prompt tokens that any step
has had so far. Estimates for larger steps are poor."""
_NEWEST_SHARE = 0.3
"""Weight of the newest observation in a moving average."""
_CONTEXT_DOUBT = 16.0
"""Standard deviation of contexts, in tokens, at which the estimate `_TokenCost.slope` is halved."""
PASSES_UNTIL_GROWTH = 64
"""`MemoryLimit` grows again after this number of consecutive forward passes with enough memory."""


class MemoryLimit:
    """Limits the number of tokens of a forward pass, after passes that ran out of memory."""

    def __init__(self, most: int) -> None:
        """Create a limit of `most` tokens. Lowered limits return to it."""
        self.num_tokens = self._most = most
        self._num_passes = 0

    def halve(self, num_tokens: int) -> None:
        """Lower the limit, because a pass of `num_tokens` tokens ran out of memory."""
        self.num_tokens, self._num_passes = max(1, num_tokens // 2), 0

    def record_pass(self) -> None:
        """Record that a pass had enough memory. The limit doubles after many such passes."""
        self._num_passes += 1
        if self._num_passes % PASSES_UNTIL_GROWTH == 0:
            self.num_tokens = min(2 * self.num_tokens, self._most)


@dataclass(frozen=True, slots=True)
class StepSize:
    """Amount of work in one step."""

    num_decodes: int
    """Number of tokens of running answers: one of each stream, and forced and draft tokens."""
    num_prompt_tokens: int
    context: float
    """Mean context of the prompt tokens. A token's context is the number of tokens before it."""


@dataclass(slots=True)
class _TokenCost:
    """Estimates a prompt token's time as a linear function of its context, by moving averages."""

    context: float
    """Mean of the observed contexts, in tokens."""
    ms: float
    """Mean of the observed times for one prompt token, in ms."""
    variance: float = 0.0
    """Variance of the observed contexts."""
    covariance: float = 0.0
    """Covariance of the observed contexts and times."""

    def observe(self, context: float, ms: float, share: float) -> None:
        """Record, with the weight `share`, that a prompt token with this context took `ms`."""
        off, off_ms = context - self.context, ms - self.ms
        self.context += share * off
        self.ms += share * off_ms
        self.variance = (1 - share) * (self.variance + share * off * off)
        self.covariance = (1 - share) * (self.covariance + share * off * off_ms)

    @property
    def slope(self) -> float:
        """Time in ms by which each token of context lengthens a prompt token's time; at least 0."""
        return max(0.0, self.covariance / (self.variance + _CONTEXT_DOUBT**2))

    def at(self, context: float) -> float:
        """Return a prompt token's estimated time in ms, at least half of the observed mean."""
        return max(self.ms + self.slope * (context - self.context), self.ms / 2)


@dataclass(slots=True)
class Pace:
    """Limits the size of the next step, based on the durations of earlier steps."""

    _decode_ms: dict[int, float] = field(default_factory=dict)
    """For each bit length of `num_decodes`, the mean duration of decode-only steps, in ms."""
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
        """Return the mean duration, in ms, of observed decode-only steps with a similar number of
        decodes, or None if there are none."""
        kind = num_decodes.bit_length()
        fewer = [known for known in self._decode_ms if known <= kind]
        nearest = max(fewer) if fewer else min(self._decode_ms, default=None)
        return None if nearest is None else self._decode_ms[nearest]

    def max_tokens(self, num_decodes: int, num_prompts: int, context: int, limit: int) -> int:
        """Return the maximum number of tokens, up to `limit`, in a step of `num_decodes` decodes.

        `num_prompts` prompts wait or are partly computed. The first has `context` computed tokens.
        """
        decode_ms = self._decode_ms_of(num_decodes)
        if num_decodes == 0 or decode_ms is None:
            return limit
        prompt_ms = (STRETCH - 1) * decode_ms * (1 + max(0, num_prompts - 1) / num_decodes)
        most = MAX_GROWTH * self._most_prompt_tokens
        allowed = min(self._prompt_tokens_in(prompt_ms, context), most)
        return min(num_decodes + max(int(allowed), MIN_PROMPT_TOKENS), limit)

    def _prompt_tokens_in(self, ms: float, context: int) -> float:
        if self._token is None or self._token.ms <= 0:
            return math.inf
        # On average, n / 2 of n tokens come before each of them, so n tokens take
        # n * (first + slope * n / 2).
        first, slope = self._token.at(context), self._token.slope
        return 2 * ms / (first + math.sqrt(first * first + 2 * slope * ms))
