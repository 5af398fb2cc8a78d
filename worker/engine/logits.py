"""What requests ask to be changed about their logits before a token is drawn.

In vLLM's order: a grammar forbids what doesn't follow it, and fewer than `min_tokens` forbid the
end; then logit bias, repetition penalty (over prompt and output, as in Keskar et al.: CTRL,
arXiv:1909.05858), frequency and presence penalty (over output,
https://platform.openai.com/docs/api-reference/completions). All are functions of the request's
tokens alone, so that a moved or recomputed request is treated alike.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from worker.engine.grammar import GrammarState
from worker.engine.request import Request


def is_adjusted(request: Request) -> bool:
    """Whether the request's next token is drawn from other logits than the model's."""
    sampling = request.sampling
    return bool(
        request.grammar
        or sampling.logit_bias
        or sampling.presence_penalty
        or sampling.frequency_penalty
        or sampling.repetition_penalty != 1
        or len(request.output_ids) < sampling.min_tokens
    )


def adjust(logits: Tensor, requests: Sequence[Request]) -> None:
    """Change the rows of `logits`, `[S, V]` float32, in place as `requests` ask for.

    A row whose grammar allows nothing has no finite logit then.
    """
    for row, request in zip(logits, requests, strict=True):
        if is_adjusted(request):
            if request.grammar:
                _forbid_by_grammar(row, request.grammar)
            _forbid_end(row, request)
            _add_bias(row, request.sampling.logit_bias)
            _penalise_repetition(row, request)
            _penalise_output(row, request)


def _forbid_by_grammar(row: Tensor, grammar: GrammarState) -> None:
    packed = np.frombuffer(grammar.allowed(), np.uint8)
    # As many bits as there are logits: either may be padded.
    bits = np.unpackbits(packed, bitorder="little", count=row.shape[0])
    row.masked_fill_(torch.from_numpy(bits == 0).to(row.device), -torch.inf)


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
