"""Samples tokens as a function of the logits and of (seed, choice, position).

A counter-based generator yields a uniform number, which the inverse CDF in vocabulary order maps to
a token. The token doesn't depend on other requests in the batch, nor on preemptions or moves to
another worker.

All rows of a batch are sampled by the same operations. Only the rare rows that need more than
`_NUM_CANDIDATES` tokens are sampled again, once the tokens have been read.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from worker.engine.logits import adjust, is_adjusted
from worker.engine.request import ChoiceSampling, SampledRow
from worker.kernels.largest import largest
from worker.kernels.transfer import Array, to_device, to_host

_MASK = (1 << 64) - 1
_NUM_CANDIDATES = 1024
"""Number of a row's likeliest tokens (candidates) that top-k and top-p consider at first."""
_NO_TOKEN = -1
_UNDECIDED = -2
"""Stands in for the token of a row that needs more than `_NUM_CANDIDATES` candidates."""
_BLOCK = 256
"""Number of tokens of a block. Probabilities are first added in each block, then across blocks."""
_ROWS_AT_ONCE = 32
"""Number of rows whose full vocabularies are sorted at a time, to bound memory."""
_LEAST_TEMPERATURE = 1e-30
"""Temperature that replaces smaller ones, which float32 can't represent."""


def uniform(seed: int, choice: int, position: int) -> float:
    """Return a number in [0, 1) that depends only on the arguments.

    This is SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA
    2014), chained over the arguments.
    """
    state = 0
    for word in (seed, choice, position):
        state = _mix((state + word + 0x9E3779B97F4A7C15) & _MASK)
    return (state >> 11) * 2.0**-53


def sample(logits: Tensor, rows: Sequence[SampledRow]) -> list[int]:
    """Return the next token of each row of `logits` `[S, V]`, of any floating dtype.

    -1 marks a row whose logits are not finite or whose masks forbid every token.
    """
    tokens = draw(logits, rows)
    (drawn,) = to_host([tokens])
    if decide_(tokens, drawn, logits, rows):
        (drawn,) = to_host([tokens])
    return list(map(int, drawn))


def draw(
    logits: Tensor, rows: Sequence[SampledRow], *, num_candidates: int = _NUM_CANDIDATES
) -> Tensor:
    """Return the next token of each row, `[S]` int64, without waiting for the device.

    -1 marks a row for which no token can be sampled. Rows that need more than `num_candidates`
    candidates stay undecided: read the tokens, then call `decide_` to complete these rows. This
    isn't needed if `num_candidates` is the size of the vocabulary.
    """
    changed = [i for i, row in enumerate(rows) if row.sampling.temperature > 0 or is_adjusted(row)]
    if len(changed) == len(rows):
        return _draw(logits, rows, num_candidates)
    tokens = _checked(*largest(logits))
    if changed:
        (index,) = to_device([np.array(changed)], logits.device)
        chosen = [rows[i] for i in changed]
        tokens[index] = _draw(logits.index_select(0, index), chosen, num_candidates)
    return tokens


def decide_(tokens: Tensor, drawn: Array, logits: Tensor, rows: Sequence[SampledRow]) -> bool:
    """Complete the tokens of rows that need more candidates, and return whether there were any.

    `tokens` is the result of `draw`, completed in place. `drawn` is a copy of its values on the
    host.
    """
    undecided = np.flatnonzero(drawn == _UNDECIDED)
    for start in range(0, len(undecided), _ROWS_AT_ONCE):
        part = undecided[start : start + _ROWS_AT_ONCE]
        (index,) = to_device([part], logits.device)
        chosen = [rows[i] for i in part]
        tokens[index] = draw(logits.index_select(0, index), chosen, num_candidates=logits.shape[-1])
    return len(undecided) > 0


def _draw(logits: Tensor, rows: Sequence[SampledRow], num_candidates: int) -> Tensor:
    """Adjust the logits, and return a token for each row; see `draw`."""
    adjusted = logits.to(torch.float32, copy=any(map(is_adjusted, rows)))
    adjust(adjusted, rows)
    best, tokens = largest(adjusted)
    sampled = [i for i, row in enumerate(rows) if row.sampling.temperature > 0]
    if sampled:
        cut = [i for i in sampled if _is_cut(rows[i].sampling, logits.shape[-1])]
        table, sampled_index, cut_index = to_device(
            [_table(rows, logits.shape[-1]), np.array(sampled), np.array(cut, np.int64)],
            logits.device,
        )
        probs = _probabilities(adjusted, best[:, None], table[:, :1])
        is_enough = None
        if cut:
            is_enough = _keep_likeliest(probs, adjusted, table, cut_index, num_candidates)
        found = _sample(probs, table)
        tokens[sampled_index] = found[sampled_index]
        if is_enough is not None:
            tokens[cut_index] = tokens[cut_index].masked_fill_(~is_enough, _UNDECIDED)
    return _checked(best, tokens)


def _is_cut(sampling: ChoiceSampling, vocab_size: int) -> bool:
    """Return whether top-k or top-p may exclude some tokens."""
    return 0 < sampling.top_k < vocab_size or sampling.top_p < 1


def _table(rows: Sequence[SampledRow], vocab_size: int) -> Array:
    """Return `[S, 5]` float64: temperature, uniform number, min-p, top-p and top-k of each row."""
    table = np.empty((len(rows), 5))
    for values, row in zip(table, rows, strict=True):
        sampling = row.sampling
        values[0] = max(sampling.temperature, _LEAST_TEMPERATURE)
        values[1] = uniform(sampling.seed, sampling.choice, len(row.output_ids))
        values[2:4] = sampling.min_p, sampling.top_p
        values[4] = min(sampling.top_k or vocab_size, vocab_size)
    return table


def _checked(best: Tensor, tokens: Tensor) -> Tensor:
    """Return `tokens`, with -1 for each row whose largest logit `best` isn't finite."""
    # The maximum of a row with a NaN is NaN.
    return tokens.masked_fill(~best.isfinite(), _NO_TOKEN)


def _probabilities(logits: Tensor, best: Tensor, temperature: Tensor) -> Tensor:
    """Return the probability of each token at its row's temperature.

    The result is `[S, blocks, _BLOCK]` float32. Padding tokens after the vocabulary get 0.
    """
    num_rows, vocab_size = logits.shape
    scaled = logits.new_empty(num_rows, -(-vocab_size // _BLOCK) * _BLOCK)
    scaled[:, vocab_size:] = -torch.inf
    torch.sub(logits, best, out=scaled[:, :vocab_size])
    return scaled.div_(temperature.float()).softmax(-1).view(num_rows, -1, _BLOCK)


def _keep_likeliest(
    probs: Tensor, logits: Tensor, table: Tensor, index: Tensor, num_candidates: int
) -> Tensor:
    """Set the probabilities of tokens that top-k or top-p excludes to 0.

    `probs`, `[S, blocks, _BLOCK]`, is changed in place. `logits` is `[S, V]` float32, and `table`
    is the result of `_table`. `index`, `[C]`, has the rows that top-k or top-p may change.

    Return `[C]`: whether `num_candidates` candidates suffice. Other rows have no valid result.
    """
    num_rows, vocab_size = logits.shape
    is_all = len(index) == num_rows
    chosen, of_chosen = (logits, probs) if is_all else (logits[index], probs[index])
    ranked = _ranked(chosen, min(num_candidates, vocab_size))
    weights = ((ranked - ranked[:, :1]).double() / table[index, :1]).exp_()
    largest = of_chosen.amax((1, 2))[:, None]
    mass = of_chosen.sum(-1).double().sum(-1, keepdim=True) / largest
    num_kept, is_enough = _num_kept(weights, mass, table[index], vocab_size)
    least = ranked.gather(-1, (num_kept - 1).clamp_min_(0))
    of_chosen.flatten(1)[:, :vocab_size].mul_(_first_kept(chosen, least, num_kept))
    if not is_all:
        probs[index] = of_chosen
    return is_enough[:, 0]


def _ranked(logits: Tensor, num_ranked: int) -> Tensor:
    """Return the largest logits of each row, `[C, num_ranked]`, in descending order."""
    if num_ranked < logits.shape[-1]:
        return logits.topk(num_ranked).values
    if logits.device.type == "cpu":
        # NumPy sorts by vector instructions, twenty times as fast as torch.
        return torch.from_numpy(np.sort(logits.numpy(), axis=-1)).flip(-1)
    return logits.sort(dim=-1, descending=True).values


def _num_kept(
    weights: Tensor, mass: Tensor, table: Tensor, vocab_size: int
) -> tuple[Tensor, Tensor]:
    """Count the tokens that top-k and top-p keep.

    `weights`, `[C, K]`, are the candidates' probabilities up to a factor, largest first, and
    `mass`, `[C, 1]`, is the sum over the vocabulary. `table` is the result of `_table`.

    Return the numbers, `[C, 1]`, and whether the candidates suffice for them, `[C, 1]`.
    """
    _, _, _, top_p, top_k = table.chunk(5, dim=-1)
    num_candidates = weights.shape[-1]
    rank = torch.arange(num_candidates, device=weights.device)
    weights = weights * (rank < top_k)
    sums = weights.cumsum(-1)
    limit = top_p * torch.where(top_k < vocab_size, sums[:, -1:], mass)
    num_kept = ((sums - weights < limit) & (weights > 0)).sum(-1, keepdim=True)
    if num_candidates == vocab_size:
        return num_kept, torch.ones_like(top_k, dtype=torch.bool)
    is_enough = torch.where(top_k < vocab_size, top_k <= num_candidates, sums[:, -1:] >= limit)
    return num_kept, is_enough


def _first_kept(logits: Tensor, least: Tensor, num_kept: Tensor) -> Tensor:
    """Return a mask of the `num_kept` largest logits of each row.

    `least` is the smallest of them. If more logits equal `least` than fit, the first are kept.
    """
    is_larger, is_equal = logits > least, logits == least
    num_equal = num_kept - is_larger.sum(-1, keepdim=True)
    is_equal &= is_equal.cumsum(-1, dtype=torch.int32) <= num_equal
    return is_larger.logical_or_(is_equal)


def _sample(probs: Tensor, table: Tensor) -> Tensor:
    """Sample a token of each row, `[S]`, by the inverse CDF of the tokens that min-p leaves.

    The probabilities inside the token's block and the sums of the blocks are added in float64.
    """
    _, uniforms, min_p, _, _ = table.chunk(5, dim=-1)
    least = min_p.float() * probs.amax((1, 2))[:, None]
    kept = probs * (probs >= least[..., None])
    sums = kept.sum(-1).double().cumsum(-1)
    target = uniforms * sums[:, -1:]
    block = _search(sums, target)
    before = torch.where(block > 0, sums.gather(-1, (block - 1).clamp_min(0)), 0.0)
    inside = kept.gather(1, block[..., None].expand(-1, -1, _BLOCK))[:, 0].double().cumsum(-1)
    return (block * _BLOCK + _search(inside, target - before))[:, 0]


def _search(cdf: Tensor, target: Tensor) -> Tensor:
    """Return the first index at which each row of `cdf` exceeds the row's `target`, `[S, 1]`.

    If no value exceeds the target, return the first index of the row's maximum.
    """
    found = torch.searchsorted(cdf, target, right=True)
    last = torch.searchsorted(cdf, cdf[:, -1:].contiguous())
    # Comparisons with NaN lead beyond the end.
    return torch.minimum(found, last).clamp_max(cdf.shape[-1] - 1)


def _mix(word: int) -> int:
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK
    return word ^ (word >> 31)
