"""Computes embeddings from the hidden states after the model's final norm."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from worker.engine.request import RequestId
from worker.engine.scheduler import Chunk

_EPSILON = 1e-12
"""Smallest length by which a normalised embedding is divided, as in torch's `normalize`."""


def embedding_size(model: PreTrainedModel) -> int:
    """Return the number of values of an embedding, or 0 if the model computes none.

    Embeddings need the part of the model before its output head as a module of its own.
    """
    if model.base_model is model:
        return 0
    return int(model.config.get_text_config().hidden_size)


class HiddenStates:
    """Captures the hidden states of a model's forward pass, if they are wanted."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Watch the part of `model` before its output head."""
        self.is_wanted = False
        """Whether the next forward pass is captured. Set before the pass."""
        self._states: Tensor | None = None
        model.base_model.register_forward_hook(self._capture)

    def take(self) -> Tensor:
        """Return the captured states, `[T, H]`, and forget them."""
        states, self._states = self._states, None
        assert states is not None
        return states

    def _capture(self, _module: Any, _args: Any, output: Any) -> None:
        if self.is_wanted:
            self._states = output.last_hidden_state[0]


def pool(hidden: Tensor, pooled: Sequence[tuple[Chunk, int]]) -> dict[RequestId, bytes]:
    """Add the hidden states of a step to its requests' sums.

    The sums are in float64, so that they hardly depend on the sizes of the chunks.

    Args:
        hidden: `[T, H]`, the hidden states of all tokens of the step.
        pooled: (chunk, index of its first token) of each chunk of a request for an embedding.

    Returns:
        The embedding of each request whose last token was computed: H little-endian float32, or
        no bytes if a value isn't finite.
    """
    finished = []
    for chunk, first_row in pooled:
        _add(hidden[first_row : first_row + chunk.num_tokens], chunk)
        if chunk.end == chunk.request.num_tokens:
            finished.append(chunk)
    if not finished:
        return {}
    vectors = torch.stack([_embedding(chunk) for chunk in finished]).to(torch.float32).cpu()
    is_finite = vectors.isfinite().all(-1).tolist()
    return {
        chunk.request.id: vector.numpy().astype("<f4").tobytes() if is_valid else b""
        for chunk, vector, is_valid in zip(finished, vectors, is_finite, strict=True)
    }


def _add(states: Tensor, chunk: Chunk) -> None:
    """Add the chunk's states, `[N, H]`, that are needed and that no earlier step has added."""
    request = chunk.request
    assert request.embedding is not None
    needed = request.embedding.positions(request.num_tokens)
    first = max(chunk.start, needed.start, request.num_pooled_tokens)
    end = min(chunk.end, needed.stop)
    if first >= end:
        return
    total = states[first - chunk.start : end - chunk.start].to(torch.float64).sum(0)
    request.pooled = total if request.pooled is None else request.pooled + total
    request.num_pooled_tokens = end


def _embedding(chunk: Chunk) -> Tensor:
    """Return the embedding of a request, `[H]` float64, all of whose states were added."""
    request = chunk.request
    assert request.embedding is not None
    assert request.pooled is not None
    mean = request.pooled / len(request.embedding.positions(request.num_tokens))
    if not request.embedding.normalize:
        return mean
    scaled: Tensor = mean / torch.linalg.vector_norm(mean).clamp_min(_EPSILON)
    return scaled
