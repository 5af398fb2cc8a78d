"""Adjusts logits by each request's sampling parameters before a token is sampled.

The adjustments are applied in vLLM's order:

1. Masks: of the grammar, of all but the allowed tokens, of tokens that would complete a bad word,
   and of stop tokens until `min_tokens` tokens have been output.
2. Logit bias.
3. Repetition penalty over prompt and output (Keskar et al.: CTRL, arXiv:1909.05858).
4. Frequency and presence penalty over the output
   (https://platform.openai.com/docs/api-reference/completions).

The result depends only on the logits, the sampling parameters and the request's tokens. Therefore a
request that is recomputed or moved to another worker gets the same adjustments.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from worker.engine.grammar import GrammarState
from worker.engine.request import Request


def is_adjusted(request: Request) -> bool:
    """Return whether the logits of the request's next token are adjusted."""
    sampling = request.sampling
    return bool(
        request.grammar
        or sampling.logit_bias
        or sampling.allowed_token_ids
        or sampling.bad_words
        or sampling.presence_penalty
        or sampling.frequency_penalty
        or sampling.repetition_penalty != 1
        or len(request.output_ids) < sampling.min_tokens
    )


def adjust(logits: Tensor, requests: Sequence[Request]) -> None:
    """Adjust `logits` in place. The tensor is `[S, V]` float32, with one row for each request.

    If a request's masks leave no token, all logits of the request's row become -inf.
    """
    for row, request in zip(logits, requests, strict=True):
        if is_adjusted(request):
            if request.grammar:
                _forbid_by_grammar(row, request.grammar)
            _allow_only(row, request.sampling.allowed_token_ids)
            _forbid_words(row, request)
            _forbid_end(row, request)
            _add_bias(row, request.sampling.logit_bias)
            _penalise_repetition(row, request)
            _penalise_output(row, request)


def _forbid_by_grammar(row: Tensor, grammar: GrammarState) -> None:
    packed = np.frombuffer(grammar.allowed(), np.uint8)
    # The mask and the logits may be padded to different lengths.
    bits = np.unpackbits(packed, bitorder="little", count=row.shape[0])
    row.masked_fill_(torch.from_numpy(bits == 0).to(row.device), -torch.inf)


def _allow_only(row: Tensor, token_ids: Sequence[int]) -> None:
    if token_ids:
        ids = _indices(token_ids, row)
        kept = row[ids]
        row.fill_(-torch.inf)
        row[ids] = kept


def _forbid_words(row: Tensor, request: Request) -> None:
    """Forbid each token that would complete one of the bad words."""
    output = request.output_ids
    last = {
        word[-1]
        for word in request.sampling.bad_words
        if len(word) == 1 or tuple(output[1 - len(word) :]) == word[:-1]
    }
    if last:
        row[_indices(last, row)] = -torch.inf


def _forbid_end(row: Tensor, request: Request) -> None:
    if request.stop_ids and len(request.output_ids) < request.sampling.min_tokens:
        row[_indices(request.stop_ids, row)] = -torch.inf


def _add_bias(row: Tensor, bias: Sequence[tuple[int, float]]) -> None:
    if bias:
        ids, values = zip(*bias, strict=True)
        row[_indices(ids, row)] += torch.tensor(values, dtype=row.dtype, device=row.device)


def _penalise_repetition(row: Tensor, request: Request) -> None:
    penalty = request.sampling.repetition_penalty
    if penalty != 1:
        ids = _indices({*request.prompt_ids, *request.output_ids}, row)
        scores = row[ids]
        row[ids] = torch.where(scores > 0, scores / penalty, scores * penalty)


def _penalise_output(row: Tensor, request: Request) -> None:
    sampling = request.sampling
    if not (request.output_ids and (sampling.frequency_penalty or sampling.presence_penalty)):
        return
    counts = Counter(request.output_ids)
    times = torch.tensor([*counts.values()], dtype=row.dtype, device=row.device)
    row[_indices(counts, row)] -= sampling.frequency_penalty * times + sampling.presence_penalty


def _indices(ids: Iterable[int], row: Tensor) -> Tensor:
    return torch.tensor([*ids], dtype=torch.int64, device=row.device)
