"""Log-probabilities of tokens under the model's own distribution.

That is the log-softmax of the logits as the model gives them, before bias, penalties and
temperature: vLLM's `raw_logprobs`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from worker.engine.request import Request, RequestId, TokenLogprobs

LEAST = -9999.0
"""Stands for minus infinity, which JSON doesn't have; OpenAI's value."""
_ROWS_AT_ONCE = 64
"""Bounds the float32 copies of logits when a long prompt is scored."""


def sampled_logprobs(
    logits: Tensor, requests: Sequence[Request], tokens: Sequence[int]
) -> dict[RequestId, TokenLogprobs]:
    """How likely the drawn `tokens` were, for the requests that ask; `logits` are `[S, V]`."""
    asking = [
        i for i, r in enumerate(requests) if r.sampling.logprobs is not None and tokens[i] >= 0
    ]
    if not asking:
        return {}
    index = torch.tensor(asking, device=logits.device)
    chosen = [requests[i] for i in asking]
    found = token_logprobs(logits[index], [tokens[i] for i in asking], _num_top(chosen))
    return {request.id: logprobs for request, logprobs in zip(chosen, found, strict=True)}


def score_prompts(logits: Tensor, scored: Sequence[tuple[Request, int]]) -> None:
    """Append to each request how likely the prompt token behind a position was.

    `logits` are `[P, V]`, a row for each of `scored`: a request, and a position of its prompt.
    """
    if scored:
        requests = [request for request, _ in scored]
        tokens = [request.prompt_ids[position + 1] for request, position in scored]
        found = token_logprobs(logits, tokens, _num_top(requests))
        for request, logprobs in zip(requests, found, strict=True):
            request.prompt_logprobs.append(logprobs)


def token_logprobs(
    logits: Tensor, tokens: Sequence[int], num_top: Sequence[int]
) -> list[TokenLogprobs]:
    """How likely each of `tokens` was, and the `num_top` likeliest tokens of its row.

    `logits` are `[S, V]` of any floating dtype, a row for each token.
    """
    result: list[TokenLogprobs] = []
    for first in range(0, len(tokens), _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        result += _token_logprobs(logits[rows], tokens[rows], num_top[rows])
    return result


def _token_logprobs(
    logits: Tensor, tokens: Sequence[int], num_top: Sequence[int]
) -> list[TokenLogprobs]:
    logprobs = logits.float().log_softmax(-1).nan_to_num(nan=LEAST, neginf=LEAST)
    chosen = logprobs.gather(-1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0]
    values, ids = logprobs.topk(min(max(num_top), logits.shape[-1]))
    return [
        TokenLogprobs(own, tuple(zip(row_ids[:num], row_values[:num], strict=True)))
        for own, row_ids, row_values, num in zip(
            chosen.tolist(), ids.tolist(), values.tolist(), num_top, strict=True
        )
    ]


def _num_top(requests: Sequence[Request]) -> list[int]:
    return [request.sampling.logprobs or 0 for request in requests]
