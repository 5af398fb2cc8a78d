"""Computes log-probabilities of tokens under the model's own distribution.

Log-probabilities are the log-softmax of the model's logits. Grammar, bias, penalties and
temperature don't affect them, as in vLLM's `raw_logprobs` mode.
"""

from collections.abc import Sequence
from itertools import repeat
from operator import add

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
    found = token_logprobs(
        logits[index],
        [tokens[i] for i in selected],
        [0 if r.sampling.logprob_token_ids else r.sampling.logprobs or 0 for r in chosen],
        listed=[_listed(requests[i], tokens[i]) for i in selected],
    )
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
        found = token_logprobs(
            logits,
            tokens,
            [max(r.sampling.logprobs or 0, r.sampling.prompt_logprobs or 0) for r in requests],
            ranks=any(r.sampling.prompt_logprobs is not None for r in requests),
        )
        for request, logprobs in zip(requests, found, strict=True):
            request.prompt_logprobs.append(logprobs)


def token_logprobs(
    logits: Tensor,
    tokens: Sequence[int],
    num_top: Sequence[int],
    *,
    listed: Sequence[Sequence[int]] | None = None,
    ranks: bool = False,
) -> list[TokenLogprobs]:
    """Return log-probabilities of each token and of the likeliest tokens in the token's row.

    Args:
        logits: `[S, V]` of any floating dtype, a row for each token.
        tokens: S token ids.
        num_top: for each row, the number of likeliest tokens to return.
        listed: for each row, tokens whose log-probabilities are returned after the likeliest ones.
        ranks: whether to return the rank of each token, which is the number of tokens that are at
            least as likely.
    """
    listed = [()] * len(tokens) if listed is None else listed
    result: list[TokenLogprobs] = []
    for first in range(0, len(tokens), _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        logprobs = logits[rows].float().log_softmax(-1).nan_to_num(nan=LEAST, neginf=LEAST)
        own = logprobs.gather(-1, torch.tensor(tokens[rows], device=logits.device)[:, None])
        result += map(
            TokenLogprobs,
            own[:, 0].tolist(),
            map(add, _likeliest(logprobs, num_top[rows]), _chosen(logprobs, listed[rows])),
            (logprobs >= own).sum(-1).tolist() if ranks else repeat(None),
        )
    return result


_Pairs = tuple[tuple[int, float], ...]
"""Token ids and their log-probabilities."""


def _likeliest(logprobs: Tensor, num_top: Sequence[int]) -> list[_Pairs]:
    """Return the likeliest tokens of each row of `logprobs`, `[S, V]`, likeliest first."""
    values, ids = logprobs.topk(min(max(num_top), logprobs.shape[-1]))
    return [
        tuple(zip(row_ids[:num], row_values[:num], strict=True))
        for row_ids, row_values, num in zip(ids.tolist(), values.tolist(), num_top, strict=True)
    ]


def _chosen(logprobs: Tensor, ids: Sequence[Sequence[int]]) -> list[_Pairs]:
    """Return the tokens `ids` of each row of `logprobs`, `[S, V]`."""
    places = [(row, token) for row, tokens in enumerate(ids) for token in tokens]
    if not places:
        return [()] * len(ids)
    rows, columns = torch.tensor(places, device=logprobs.device).unbind(-1)
    values = iter(logprobs[rows, columns].tolist())
    return [tuple((token, next(values)) for token in tokens) for tokens in ids]


def _listed(request: Request, token: int) -> tuple[int, ...]:
    """Return the tokens that a request reports instead of the likeliest ones, or nothing.

    As in vLLM, the sampled token is the first of them.
    """
    ids = request.sampling.logprob_token_ids
    return tuple(dict.fromkeys((token, *ids))) if ids else ()
