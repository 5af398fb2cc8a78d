"""Adjusts logits by each request's sampling parameters before a token is sampled.

The adjustments are applied in vLLM's order:

1. Masks. They forbid tokens that the grammar rules out, tokens other than the allowed ones if any
   are given, tokens that would complete a bad word, and stop tokens until `min_tokens` tokens have
   been output.
2. Logit bias.
3. Repetition penalty over prompt and output (Keskar et al.: CTRL, arXiv:1909.05858).
4. Frequency and presence penalty over the output
   (https://platform.openai.com/docs/api-reference/completions).
5. The cut of `top_n_sigma` (Tang et al.: Top-n-sigma, arXiv:2411.07641), as in llama.cpp.

The result depends only on the logits, the sampling parameters and the request's tokens. Therefore a
request that is recomputed or moved to another worker gets the same adjustments.

All rows are adjusted together. The host collects (row, token, value) triplets and the grammars'
bitmasks, and copies them to the device in one transfer.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from worker.engine.request import SampledRow
from worker.kernels.transfer import Array, to_device

_BITS = np.unpackbits(
    np.arange(256, dtype=np.uint8)[:, None], axis=-1, bitorder="little", count=8
).view(np.int64)[:, 0]
"""For each value of a byte, an int64 whose eight bytes are the bits of the value."""


def is_adjusted(row: SampledRow) -> bool:
    """Return whether the logits of the row's next token are adjusted."""
    sampling = row.sampling
    return bool(
        row.grammar
        or sampling.logit_bias
        or sampling.allowed_token_ids
        or sampling.bad_words
        or sampling.presence_penalty
        or sampling.frequency_penalty
        or sampling.repetition_penalty != 1
        or sampling.top_n_sigma > 0
        or len(row.output_ids) < sampling.min_tokens
    )


def adjust(logits: Tensor, rows: Sequence[SampledRow]) -> None:
    """Adjust `logits` in place. The tensor is `[S, V]` float32, with a row for each of `rows`.

    If the masks of a row forbid every token, all its logits become -inf.
    """
    changed = [(index, row) for index, row in enumerate(rows) if is_adjusted(row)]
    if not changed:
        return
    masks = _Masks(num_tokens=logits.shape[-1])
    allowed, forbidden, biased, repeated, penalised = parts = [_Triplets() for _ in range(5)]
    for index, row in changed:
        sampling = row.sampling
        if row.grammar:
            masks.add(index, row.grammar.allowed())
        allowed.add(index, sampling.allowed_token_ids)
        forbidden.add(index, forbidden_tokens(row))
        biased.add(index, [t for t, _ in sampling.logit_bias], [b for _, b in sampling.logit_bias])
        if sampling.repetition_penalty != 1:
            seen = {*row.prompt_ids, *row.output_ids}
            repeated.add(index, seen, sampling.repetition_penalty)
        if sampling.presence_penalty or sampling.frequency_penalty:
            penalised.add(index, *_penalties(row))
    limited = [index for index, row in changed if row.sampling.allowed_token_ids]
    cut = [index for index, row in changed if row.sampling.top_n_sigma > 0]
    num_sigmas = [rows[index].sampling.top_n_sigma for index in cut]
    arrays = [*masks.arrays(), np.array(limited, np.int64)]
    arrays += [array for part in parts for array in part.arrays()]
    arrays += [np.array(cut, np.int64), np.array(num_sigmas, np.float64)]
    on_device = iter(to_device(arrays, logits.device))
    _forbid_by_masks(logits, next(on_device), next(on_device), next(on_device))
    _allow_only(logits, next(on_device), *_next_triplets(on_device))
    _forbid(logits, *_next_triplets(on_device))
    _add_bias(logits, *_next_triplets(on_device))
    _penalise_repetition(logits, *_next_triplets(on_device))
    _subtract(logits, *_next_triplets(on_device))
    _cut_below(logits, next(on_device), next(on_device))


class _Triplets:
    """Collects (row, token, value) triplets."""

    def __init__(self) -> None:
        self._rows: list[int] = []
        self._tokens: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        self._values: list[NDArray[np.float32]] = [np.zeros(0, np.float32)]

    def add(self, row: int, tokens: Collection[int], values: ArrayLike = 0.0) -> None:
        """Add distinct tokens of a row, with one value for all of them or a value for each."""
        if tokens:
            self._rows.append(row)
            self._tokens.append(np.fromiter(tokens, np.int64, len(tokens)))
            self._values.append(np.broadcast_to(np.asarray(values, np.float32), len(tokens)))

    def arrays(self) -> list[Array]:
        """Return the rows, the tokens and the values of all triplets, as three arrays."""
        counts = [len(tokens) for tokens in self._tokens[1:]]
        rows = np.repeat(np.array(self._rows, np.int64), counts)
        return [rows, np.concatenate(self._tokens), np.concatenate(self._values)]


class _Masks:
    """Collects rows' bitmasks of allowed tokens, for a vocabulary of `num_tokens` tokens."""

    def __init__(self, num_tokens: int) -> None:
        self._num_bytes = -(-num_tokens // 8)
        self._rows: list[int] = []
        self._masks: list[NDArray[np.uint8]] = []

    def add(self, row: int, mask: bytes) -> None:
        """Add the bitmask of a row. Tokens beyond the end of the mask aren't allowed."""
        padded = np.zeros(self._num_bytes, np.uint8)
        given = np.frombuffer(mask, np.uint8)[: self._num_bytes]
        padded[: len(given)] = given
        self._rows.append(row)
        self._masks.append(padded)

    def arrays(self) -> list[Array]:
        """Return the rows, their masks, and the table with which `_forbid_by_masks` reads them."""
        masks = np.stack(self._masks) if self._masks else np.zeros((0, 0), np.uint8)
        return [np.array(self._rows, np.int64), masks, _BITS if self._masks else _BITS[:0]]


def forbidden_tokens(row: SampledRow) -> set[int]:
    """Return the tokens that would complete a bad word, or end the output too early."""
    output, sampling = row.output_ids, row.sampling
    tokens = {
        word[-1]
        for word in sampling.bad_words
        if len(word) == 1 or tuple(output[1 - len(word) :]) == word[:-1]
    }
    return tokens.union(row.stop_ids) if len(output) < sampling.min_tokens else tokens


def _penalties(row: SampledRow) -> tuple[Collection[int], NDArray[np.float32]]:
    """Return the distinct output tokens, and the frequency plus presence penalty of each."""
    sampling, counts = row.sampling, Counter(row.output_ids)
    times = np.array([*counts.values()], np.float32)
    by_frequency = np.float32(sampling.frequency_penalty) * times
    return counts.keys(), by_frequency + np.float32(sampling.presence_penalty)


def _next_triplets(tensors: Iterator[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    return next(tensors), next(tensors), next(tensors)


def _forbid_by_masks(logits: Tensor, rows: Tensor, masks: Tensor, bits: Tensor) -> None:
    """Set logits to -inf where the row's mask doesn't allow the token.

    `rows` `[G]` are the rows with a mask, `masks` is `[G, bytes]` uint8, and `bits` is `_BITS`.
    """
    if len(rows):
        is_allowed = bits.index_select(0, masks.flatten().int()).view(torch.bool)
        is_allowed = is_allowed.view(len(rows), -1)[:, : logits.shape[-1]]
        kept = logits.index_select(0, rows).masked_fill_(is_allowed.logical_not_(), -torch.inf)
        logits.index_copy_(0, rows, kept)


def _allow_only(logits: Tensor, limited: Tensor, rows: Tensor, tokens: Tensor, _: Tensor) -> None:
    """Set all logits of the rows `limited` to -inf, except those of the (row, token) pairs.

    The pairs are the elements of `rows` and `tokens` at the same index.
    """
    if len(rows):
        kept = logits[rows, tokens]
        logits.index_fill_(0, limited, -torch.inf)
        logits[rows, tokens] = kept


def _forbid(logits: Tensor, rows: Tensor, tokens: Tensor, _: Tensor) -> None:
    if len(rows):
        logits[rows, tokens] = -torch.inf


def _add_bias(logits: Tensor, rows: Tensor, tokens: Tensor, bias: Tensor) -> None:
    if len(rows):
        logits[rows, tokens] += bias


def _penalise_repetition(logits: Tensor, rows: Tensor, tokens: Tensor, penalty: Tensor) -> None:
    if len(rows):
        scores = logits[rows, tokens]
        logits[rows, tokens] = torch.where(scores > 0, scores / penalty, scores * penalty)


def _subtract(logits: Tensor, rows: Tensor, tokens: Tensor, penalty: Tensor) -> None:
    if len(rows):
        logits[rows, tokens] -= penalty


def _cut_below(logits: Tensor, rows: Tensor, num_sigmas: Tensor) -> None:
    """Exclude tokens whose logit is more than `num_sigmas` standard deviations below the largest.

    `num_sigmas`, `[R]`, has a value for each of the `rows`, `[R]`.
    """
    if not len(rows):
        return
    chosen = logits[rows].double()
    is_left = chosen > -torch.inf
    count = is_left.sum(-1, keepdim=True)
    mean = chosen.masked_fill(~is_left, 0).sum(-1, keepdim=True) / count
    squares = (chosen - mean).masked_fill_(~is_left, 0).square_().sum(-1, keepdim=True)
    least = chosen.amax(-1, keepdim=True) - num_sigmas[:, None] * (squares / count).sqrt()
    logits[rows] = logits[rows].masked_fill(chosen < least, -torch.inf)
