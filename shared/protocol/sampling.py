"""Sampling parameters that pass unchanged from a request to the sampler.

A new parameter of this kind is declared here and in `api/schema/generation.py`, and takes effect in
`worker/engine/logits.py` or `sampler.py`. The code between them copies it by its name.
"""

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSampling:
    """How tokens are sampled. A sample depends only on logits, seed, choice and position."""

    seed: int
    """Seed of the samples. If the client sends none, the front end picks one, so that another
    worker can continue the job with identical samples."""
    temperature: float = 1.0
    """Temperature of sampling; 0 always selects the likeliest token."""
    top_p: float = 1.0
    top_k: int = 0
    """Number of likeliest tokens to sample from; 0 samples from all tokens."""
    min_p: float = 0.0
    top_n_sigma: float = 0.0
    """Maximum distance of a sampled token's logit below the largest logit, in standard deviations
    of the logits; 0 or less allows all tokens."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Pairs of a token id and the value that is added to the token's logit."""
    min_tokens: int = 0
    """Minimum number of output tokens of a choice. Neither an end-of-sequence token nor a stop
    string ends the choice earlier."""
    allowed_token_ids: tuple[int, ...] = ()
    """Tokens that may be sampled; empty allows all."""
    logprobs: int | None = None
    """Number of likeliest tokens to report with each token; None reports no logprobs."""
    logprob_token_ids: tuple[int, ...] = ()
    """Token ids whose logprobs are reported with each output token; if empty, the likeliest tokens
    are reported instead."""
    prompt_logprobs: int | None = None
    """Number of likeliest tokens to report with each token of the prompt, in addition to that token
    itself and its rank; None reports no scores of prompts."""

    def values(self) -> dict[str, Any]:
        """Return the parameters of this class by name, without parameters of subclasses."""
        return {name: getattr(self, name) for name in _NAMES}


_NAMES = tuple(field.name for field in fields(TokenSampling))
