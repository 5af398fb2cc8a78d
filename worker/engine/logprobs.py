"""Computes log-probabilities of tokens under the model's own distribution.

Log-probabilities are the log-softmax of the model's logits. Grammar, bias, penalties and
temperature don't affect them, as in vLLM's `raw_logprobs` mode.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from worker.engine.request import Request, SampledRow, TokenLogprobs
from worker.kernels.transfer import Array, Pending, to_device

LEAST = -9999.0
"""Replaces minus infinity, which JSON can't represent. OpenAI uses the same value."""
_ROWS_AT_ONCE = 64
"""Number of rows that are converted to float32 at a time, to bound memory for long prompts."""


def sampled_logprobs(
    logits: Tensor, rows: Sequence[SampledRow], tokens: Tensor
) -> Pending[dict[int, TokenLogprobs]]:
    """Return the log-probabilities of the sampled tokens by row index.

    `logits` is `[S, V]` and `tokens` `[S]`, for S rows and V token ids. Rows that don't ask for
    log-probabilities are left out. A negative token marks a row whose sampling failed. The values
    of such a row are meaningless.
    """
    selected = [i for i, r in enumerate(rows) if r.sampling.logprobs is not None]
    if not selected:
        return Pending([], lambda _: {})
    chosen = [rows[i] for i in selected]
    tokens = tokens.clamp_min(0)
    if len(selected) < len(rows):
        (index,) = to_device([np.array(selected)], logits.device)
        logits, tokens = logits.index_select(0, index), tokens.index_select(0, index)
    found = token_logprobs(
        logits,
        tokens,
        [0 if r.sampling.logprob_token_ids else r.sampling.logprobs or 0 for r in chosen],
        listed=[r.sampling.logprob_token_ids for r in chosen],
    )
    return Pending(
        found.tensors, lambda arrays: dict(zip(selected, found.finish(arrays), strict=True))
    )


def prompt_logprobs(
    logits: Tensor, scored: Sequence[tuple[Request, int]]
) -> Pending[list[TokenLogprobs]]:
    """Return the log-probabilities of the prompt tokens that follow the positions in `scored`.

    `logits` is `[P, V]`, a row for each (request, position) pair.
    """
    if not scored:
        return Pending([], lambda _: [])
    requests = [request for request, _ in scored]
    following = [request.prompt_ids[position + 1] for request, position in scored]
    (tokens,) = to_device([np.array(following)], logits.device)
    return token_logprobs(
        logits,
        tokens,
        [max(r.sampling.logprobs or 0, r.sampling.prompt_logprobs or 0) for r in requests],
        ranks=any(r.sampling.prompt_logprobs is not None for r in requests),
    )


def token_logprobs(
    logits: Tensor,
    tokens: Tensor,
    num_top: Sequence[int],
    *,
    listed: Sequence[Sequence[int]] | None = None,
    ranks: bool = False,
) -> Pending[list[TokenLogprobs]]:
    """Return log-probabilities of each token and of the likeliest tokens in the token's row.

    `logits` is `[S, V]` of any floating dtype, with a row for each of `tokens` `[S]`. For each row,
    the `num_top` likeliest tokens are returned, then the tokens `listed`. If the row has listed
    tokens, its own token comes before them, as in vLLM. With `ranks`, each token's rank is
    also returned: the number of tokens that are at least as likely.
    """
    listed = [()] * len(num_top) if listed is None else listed
    (columns,) = to_device([_padded(listed)], logits.device)
    most = min(max(num_top), logits.shape[-1])
    parts = []
    for first in range(0, len(num_top), _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        parts.append(_scores(logits[rows], tokens[rows], columns[rows], most, ranks=ranks))
    tensors = [tokens, *(torch.cat(column) for column in zip(*parts, strict=True))]
    return Pending(tensors, lambda arrays: _describe(arrays, num_top, listed))


def _padded(lists: Sequence[Sequence[int]]) -> Array:
    """Return the lists as rows of an int64 array, padded with 0."""
    padded = np.zeros((len(lists), max(map(len, lists))), np.int64)
    for row, items in zip(padded, lists, strict=True):
        row[: len(items)] = items
    return padded


def _scores(
    logits: Tensor, tokens: Tensor, columns: Tensor, num_top: int, *, ranks: bool
) -> tuple[Tensor, ...]:
    """Return the log-probabilities of S rows, in the order in which `_describe` reads them.

    Returns:
        The log-probability of each token `[S]`, the likeliest tokens and their log-probabilities
        `[S, num_top]`, the log-probabilities of the token ids `columns`, and the ranks `[S, 1]`
        (`[S, 0]` without `ranks`).
    """
    logprobs = logits.float().log_softmax(-1).nan_to_num(nan=LEAST, neginf=LEAST)
    own = logprobs.gather(-1, tokens[:, None])
    values, ids = logprobs.topk(num_top)
    rank = (logprobs >= own).sum(-1, keepdim=True) if ranks else tokens[:, None][:, :0]
    return own[:, 0], ids, values, logprobs.gather(-1, columns), rank


def _describe(
    arrays: Sequence[Array], num_top: Sequence[int], listed: Sequence[Sequence[int]]
) -> list[TokenLogprobs]:
    tokens, own, *others = (array.tolist() for array in arrays)
    found = []
    for token, logprob, num, names, ids, values, of_listed, rank in zip(
        tokens, own, num_top, listed, *others, strict=True
    ):
        top = list(zip(ids[:num], values[:num], strict=True))
        if names:
            top += ({token: logprob} | dict(zip(names, of_listed, strict=False))).items()
        found.append(TokenLogprobs(logprob, tuple(top), *rank))
    return found
