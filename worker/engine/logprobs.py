"""Computes log-probabilities of tokens under the model's own distribution.

Log-probabilities are the log-softmax of the model's logits. Grammar, bias, penalties and
temperature don't affect them, as in vLLM's `raw_logprobs` mode.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from worker.engine.request import Request, RequestId, TokenLogprobs

LEAST = -9999.0
"""Log-probability that replaces minus infinity, which JSON cannot represent.

OpenAI uses the same value.
"""
_ROWS_AT_ONCE = 64
"""Number of rows that are converted to float32 at a time, to bound memory for long prompts."""


def sampled_logprobs(
    logits: Tensor, requests: Sequence[Request], tokens: Sequence[int]
) -> dict[RequestId, TokenLogprobs]:
    """Return the log-probabilities of sampled tokens, by request.

    Requests that don't ask for log-probabilities or whose token is -1 are left out.

    Args:
        logits: `[S, V]`, a row for each request.
        requests: the S requests.
        tokens: the sampled token of each request; -1 if no token could be sampled.
    """
    selected = [
        i for i, r in enumerate(requests) if r.sampling.logprobs is not None and tokens[i] >= 0
    ]
    if not selected:
        return {}
    index = torch.tensor(selected, device=logits.device)
    chosen = [requests[i] for i in selected]
    found = token_logprobs(logits[index], [tokens[i] for i in selected], _num_top(chosen))
    return {request.id: logprobs for request, logprobs in zip(chosen, found, strict=True)}


def score_prompts(logits: Tensor, scored: Sequence[tuple[Request, int]]) -> None:
    """Append the log-probabilities of prompt tokens to their requests' `prompt_logprobs`.

    Args:
        logits: `[P, V]`, a row for each pair in `scored`.
        scored: (request, position) pairs. The prompt token at `position + 1` is scored.
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
    """Return log-probabilities of each token and of the likeliest tokens in the token's row.

    Args:
        logits: `[S, V]` of any floating dtype, a row for each token.
        tokens: S token ids.
        num_top: for each row, the number of likeliest tokens to return.
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
