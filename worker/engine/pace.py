"""How large a step may be so that running streams don't stall. Policy only: no torch, no clock."""

from dataclasses import dataclass

STRETCH = 2.5
"""A step that also computes prompts takes at most so many times one that only decodes."""
MIN_PROMPT_TOKENS = 32
"""Of a step, whatever that does to its time: prompts must get on."""
_NEWEST_SHARE = 0.3


@dataclass(slots=True)
class _Seen:
    """Steps of about one size: moving averages."""

    tokens: float
    ms: float


class Pace:
    """Learns from the steps that were run how long one of so many tokens takes."""

    def __init__(self) -> None:
        self._seen: dict[int, _Seen] = {}
        """By the number of bits of the step's tokens."""

    def observe(self, num_tokens: int, ms: float) -> None:
        """Take note of a step."""
        seen = self._seen.setdefault(num_tokens.bit_length(), _Seen(num_tokens, ms))
        seen.tokens += (num_tokens - seen.tokens) * _NEWEST_SHARE
        seen.ms += (ms - seen.ms) * _NEWEST_SHARE

    def max_tokens(self, num_decodes: int, limit: int) -> int:
        """Tokens of a step with `num_decodes` streams in it, at most `limit`."""
        decode = self._seen.get(num_decodes.bit_length())
        if num_decodes == 0 or decode is None:
            return limit
        allowed_ms = STRETCH * decode.ms
        # A step costs something and then so much a token. So a larger one never takes longer
        # than in proportion, and what a step allows is also allowed in proportion.
        allowed = max(
            seen.tokens * allowed_ms / seen.ms
            for seen in self._seen.values()
            if seen.ms <= allowed_ms
        )
        return min(max(int(allowed), num_decodes + MIN_PROMPT_TOKENS), limit)
