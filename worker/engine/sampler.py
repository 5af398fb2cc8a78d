"""Samples tokens as a function of the logits and of (seed, choice, position).

A counter-based generator yields a uniform number, which the inverse CDF in vocabulary order maps to
a token. The token doesn't depend on other requests in the batch, nor on preemptions or moves to
another worker.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from worker.engine.logits import adjust, is_adjusted
from worker.engine.request import ChoiceSampling, Request

_MASK = (1 << 64) - 1
_NUM_CANDIDATES = 1024
"""Number of likeliest tokens that are sorted for top-k and top-p.

If a row needs more tokens, its full vocabulary is sorted.
"""


def uniform(seed: int, choice: int, position: int) -> float:
    """Return a number in [0, 1) that depends only on the arguments.

    The mixing function of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
    Generators, OOPSLA 2014) is chained over the arguments.
    """
    state = 0
    for word in (seed, choice, position):
        state = _mix((state + word + 0x9E3779B97F4A7C15) & _MASK)
    return (state >> 11) * 2.0**-53


def sample(logits: Tensor, requests: Sequence[Request]) -> list[int]:
    """Return the next token of each request.

    Args:
        logits: `[S, V]` of any floating dtype, a row for each request.
        requests: the S requests.

    Returns:
        Token ids. -1 marks a row whose logits are not finite or whose masks leave no token.
    """
    best, tokens = logits.max(-1)
    others = [i for i, r in enumerate(requests) if r.sampling.temperature > 0 or is_adjusted(r)]
    if others:
        index = torch.tensor(others, device=logits.device)
        chosen = [requests[i] for i in others]
        adjusted = logits[index].float()
        adjust(adjusted, chosen)
        best[index] = adjusted.amax(-1).to(best.dtype)
        tokens[index] = _choose(adjusted, chosen)
    # The maximum of a row with a NaN is NaN.
    return tokens.masked_fill(~best.isfinite(), -1).tolist()


def _choose(logits: Tensor, requests: Sequence[Request]) -> Tensor:
    """Return `[S]` tokens: the likeliest for rows with temperature 0, else a sampled one."""
    positions = [len(r.output_ids) for r in requests]
    tokens = _sample_rows(logits, [r.sampling for r in requests], positions)
    is_greedy = [r.sampling.temperature == 0 for r in requests]
    if not any(is_greedy):
        return tokens
    return torch.where(torch.tensor(is_greedy, device=logits.device), logits.argmax(-1), tokens)


def _sample_rows(
    logits: Tensor, rows: Sequence[ChoiceSampling], positions: Sequence[int]
) -> Tensor:
    temperature = _column([r.temperature or 1.0 for r in rows], logits.device)
    scaled = (logits - logits.amax(-1, keepdim=True)) / temperature
    probs = _keep_likely(scaled.softmax(-1), rows)
    cdf = probs.cumsum(-1)
    uniforms = _column(
        [uniform(r.seed, r.choice, p) for r, p in zip(rows, positions, strict=True)], logits.device
    )
    found = torch.searchsorted(cdf, uniforms * cdf[:, -1:], right=True)
    # If the product rounds up to the total mass, take the last token of positive probability.
    last = (probs > 0).cumsum(-1).argmax(-1, keepdim=True)
    return torch.minimum(found, last).squeeze(-1)


def _keep_likely(probs: Tensor, rows: Sequence[ChoiceSampling]) -> Tensor:
    """Apply top-k, top-p and min-p to probabilities `[S, V]`, without renormalising them."""
    min_p = _column([r.min_p for r in rows], probs.device)
    is_kept = probs >= min_p * probs.amax(-1, keepdim=True)
    for i, row in enumerate(rows):
        if row.top_k > 0 or row.top_p < 1:
            probs[i] = _top(probs[i], row.top_k, row.top_p)
    return probs * is_kept


def _top(probs: Tensor, top_k: int, top_p: float) -> Tensor:
    """Return `probs`, `[V]`, with 0 for each token that top-k or top-p excludes."""
    vocab_size = probs.shape[0]
    top_k = min(top_k, vocab_size) if top_k > 0 else vocab_size
    num_sorted = min(max(_NUM_CANDIDATES, top_k if top_k < vocab_size else 0), vocab_size)
    values, ids = probs.topk(num_sorted)
    is_enough = top_k <= num_sorted or float(values.sum()) >= top_p
    if not is_enough:
        values, ids = probs.sort(descending=True, stable=True)
    values, ids = values[:top_k], ids[:top_k]
    total = values.sum() if top_k < vocab_size else 1.0
    before = values.cumsum(-1) - values
    is_kept = before < top_p * total
    return torch.zeros_like(probs).index_copy_(0, ids[is_kept], values[is_kept])


def _column(values: list[float], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device=device)[:, None]


def _mix(word: int) -> int:
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK
    return word ^ (word >> 31)
