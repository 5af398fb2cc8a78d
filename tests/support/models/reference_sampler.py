"""The sampler by its definition: one row at a time, in float64 over the whole vocabulary."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from worker.engine.request import SampledRow
from worker.engine.sampler import uniform

MARGIN = 1e-6
"""Distance from an edge within which rounding may change what is sampled."""


def reference_token(logits: NDArray[np.float32], row: SampledRow) -> tuple[int, bool]:
    """Return the token of a row of finite logits, and whether an edge is within `MARGIN`.

    Edges are those of the CDF in vocabulary order, and those at which top-p and min-p cut.
    """
    adjusted, sampling = adjusted_logits(logits, row), row.sampling
    if not np.isfinite(adjusted.max()):
        return -1, False
    if sampling.temperature == 0:
        return int(adjusted.argmax()), False
    with np.errstate(over="ignore"):
        weights = np.exp((adjusted.astype(np.float64) - adjusted.max()) / sampling.temperature)
    probs = weights / weights.sum()
    order = np.argsort(-adjusted, kind="stable")
    ranked = probs[order]
    if 0 < sampling.top_k < len(ranked):
        ranked[sampling.top_k :] = 0
    limit = sampling.top_p * (ranked.sum() if 0 < sampling.top_k < len(ranked) else 1.0)
    before = ranked.cumsum() - ranked
    is_near = bool(np.any(np.abs(before - limit) < MARGIN)) and sampling.top_p < 1
    kept = np.zeros_like(probs)
    kept[order] = np.where((before < limit) | (sampling.top_p == 1), ranked, 0)
    is_near |= bool(np.any(np.abs(probs / probs.max() - sampling.min_p) < MARGIN * sampling.min_p))
    kept[probs < sampling.min_p * probs.max()] = 0
    cdf = kept.cumsum() / kept.sum()
    number = uniform(sampling.seed, sampling.choice, len(row.output_ids))
    is_near |= bool(np.any(np.abs(cdf - number) < MARGIN))
    return min(int(np.searchsorted(cdf, number, side="right")), int(kept.nonzero()[0][-1])), is_near


def adjusted_logits(logits: NDArray[np.float32], row: SampledRow) -> NDArray[np.float32]:
    """Return the logits after masks, bias, penalties and the cut by deviation."""
    sampling, output, adjusted = row.sampling, list(row.output_ids), logits.copy()
    if row.grammar:
        bits = np.unpackbits(np.frombuffer(row.grammar.allowed(), np.uint8), bitorder="little")
        bits = np.resize(np.concatenate([bits, np.zeros(len(logits), np.uint8)]), len(logits))
        adjusted[bits == 0] = -np.inf
    if sampling.allowed_token_ids:
        is_allowed = np.isin(np.arange(len(logits)), sampling.allowed_token_ids)
        adjusted[~is_allowed] = -np.inf
    for word in sampling.bad_words:
        if len(word) == 1 or tuple(output[1 - len(word) :]) == word[:-1]:
            adjusted[word[-1]] = -np.inf
    if len(output) < sampling.min_tokens:
        adjusted[list(row.stop_ids)] = -np.inf
    for token, bias in sampling.logit_bias:
        adjusted[token] += np.float32(bias)
    for token in {*row.prompt_ids, *output}:
        penalty, logit = np.float32(sampling.repetition_penalty), adjusted[token]
        adjusted[token] = logit / penalty if logit > 0 else logit * penalty
    for token, times in Counter(output).items():
        frequency = np.float32(sampling.frequency_penalty) * np.float32(times)
        adjusted[token] -= frequency + np.float32(sampling.presence_penalty)
    left = adjusted[adjusted > -np.inf].astype(np.float64)
    if sampling.top_n_sigma > 0 and len(left):
        adjusted[adjusted < left.max() - sampling.top_n_sigma * left.std()] = -np.inf
    return adjusted
