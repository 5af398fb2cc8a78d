"""Sampling parameters that a request states and the sampler reads, unchanged on their way.

A parameter of this kind is declared here and in `api/schema/generation.py`, and takes effect in
`worker/engine/logits.py` or `sampler.py`. Everything between copies it by its name.
"""

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSampling:
    """How tokens are sampled. Samples depend only on the logits, seed, choice and position."""

    seed: int
    """Seed of the samples. If the client sends no seed, the front end picks one. Another worker
    can therefore continue the job with identical samples."""
    temperature: float = 1.0
    """Temperature of sampling; 0 always selects the likeliest token."""
    top_p: float = 1.0
    top_k: int = 0
    """Number of likeliest tokens to sample from; 0 samples from all tokens."""
    min_p: float = 0.0
    top_n_sigma: float = 0.0
    """Number of standard deviations of the logits. Only tokens whose logits are at most as far
    below the largest one may be sampled; 0 and less allow all."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Pairs of a token id and the value that is added to the token's logit."""
    min_tokens: int = 0
    """Minimum number of output tokens of a choice. No end-of-sequence token or stop string ends
    the choice earlier."""
    allowed_token_ids: tuple[int, ...] = ()
    """The only tokens that may be sampled; empty allows all."""
    logprobs: int | None = None
    """Number of likeliest tokens to report with each token; None reports no logprobs."""
    logprob_token_ids: tuple[int, ...] = ()
    """Tokens to report with each output token instead of the likeliest ones; empty reports the
    likeliest ones."""
    prompt_logprobs: int | None = None
    """Number of likeliest tokens to report with each token of the prompt, together with its rank;
    None reports no scores of prompts."""

    def values(self) -> dict[str, Any]:
        """Return these parameters, without those of subclasses, by name."""
        return {name: getattr(self, name) for name in _NAMES}


_NAMES = tuple(field.name for field in fields(TokenSampling))
