"""Computes embeddings from the hidden states after the model's final norm."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from worker.engine.request import Request, RequestId
from worker.engine.scheduler import Chunk
from worker.kernels.transfer import Array, Pending, to_device

_EPSILON = 1e-12
"""Smallest length by which a normalised embedding is divided, as in torch's `normalize`."""


def embedding_size(model: PreTrainedModel) -> int:
    """Return the number of values of an embedding, or 0 if the model computes none.

    Embeddings need a model whose layers before the output head are a separate module.
    """
    if model.base_model is model:
        return 0
    return int(model.config.get_text_config().hidden_size)


class HiddenStates:
    """Captures the hidden states of a model's forward pass on request."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Add a hook to the part of `model` before its output head."""
        self.is_wanted = False
        """Whether the next forward pass is captured. Set before the pass."""
        self._states: Tensor | None = None
        self._hook = model.base_model.register_forward_hook(self._capture)

    def close(self) -> None:
        """Remove the hook from the model."""
        self._hook.remove()

    def take(self) -> Tensor:
        """Return the captured states, `[T, H]`, and forget them."""
        states, self._states = self._states, None
        assert states is not None
        return states

    def _capture(self, _module: Any, _args: Any, output: Any) -> None:
        # A pass that failed after this point has left its states here.
        self._states = output.last_hidden_state[0] if self.is_wanted else None


def pool(hidden: Tensor, pooled: Sequence[tuple[Chunk, int]]) -> Pending[dict[RequestId, bytes]]:
    """Add the hidden states `[T, H]` of a step to its requests' sums.

    The sums are in float64, so that they hardly depend on the sizes of the chunks. `pooled` has
    each chunk of a request for embeddings, with the row of `hidden` at which the chunk begins.

    Returns:
        The embedding of each request whose last token was computed: H little-endian float32, or
        no bytes if a value isn't finite.
    """
    _add(hidden, pooled)
    finished = [c.request for c, _ in pooled if c.end == c.request.num_tokens]
    if not finished:
        return Pending([], lambda _: {})
    ids = [request.id for request in finished]
    return Pending(
        [_embeddings(finished)],
        lambda arrays: dict(zip(ids, map(_bytes, arrays[0]), strict=True)),
    )


@dataclass(frozen=True, slots=True)
class _Needed:
    """Hidden states of one request that this step must add to the request's sum."""

    request: Request
    rows: range
    """Rows of the step's hidden states."""
    end: int
    """Position in the request's tokens after the last of these hidden states."""


def _add(hidden: Tensor, pooled: Sequence[tuple[Chunk, int]]) -> None:
    needed = [found for chunk, first in pooled if (found := _needed(chunk, first)) is not None]
    if not needed:
        return
    earlier = [i for i, found in enumerate(needed) if found.request.pooled is not None]
    rows, targets, earlier_targets = to_device(
        [
            np.concatenate([np.array(found.rows) for found in needed]),
            np.repeat(np.arange(len(needed)), [len(found.rows) for found in needed]),
            np.array(earlier, np.int64),
        ],
        hidden.device,
    )
    sums = hidden.new_zeros((len(needed), hidden.shape[-1]), dtype=torch.float64)
    sums.index_add_(0, targets, hidden.index_select(0, rows).double())
    if earlier:
        before = [found.request.pooled for found in needed if found.request.pooled is not None]
        sums.index_add_(0, earlier_targets, torch.stack(before))
    for found, total in zip(needed, sums.unbind(), strict=True):
        found.request.pooled = total
        found.request.num_pooled_tokens = found.end


def _needed(chunk: Chunk, first_row: int) -> _Needed | None:
    request = chunk.request
    assert request.embedding is not None
    positions = request.embedding.positions(request.num_tokens)
    first = max(chunk.start, positions.start, request.num_pooled_tokens)
    end = min(chunk.end, positions.stop)
    if first >= end:
        return None
    offset = first_row - chunk.start
    return _Needed(request, range(first + offset, end + offset), end)


def _embeddings(requests: Sequence[Request]) -> Tensor:
    """Return the embeddings of N requests whose `pooled` sums are complete, `[N, H]` float32."""
    counts, is_normalised = [], []
    for request in requests:
        assert request.embedding is not None
        counts.append(len(request.embedding.positions(request.num_tokens)))
        is_normalised.append(request.embedding.normalize)
    totals = torch.stack([request.pooled for request in requests if request.pooled is not None])
    table = np.array([counts, is_normalised], np.float64)
    (columns,) = to_device([table[..., None]], totals.device)
    means = totals / columns[0]
    lengths = torch.linalg.vector_norm(means, dim=-1, keepdim=True).clamp_min(_EPSILON)
    return torch.where(columns[1] > 0, means / lengths, means).float()


def _bytes(vector: Array) -> bytes:
    return vector.astype("<f4").tobytes() if np.isfinite(vector).all() else b""
