"""Runs the model and the sampler for one step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from worker.engine.batch import StepBatch, build_step
from worker.engine.logprobs import sampled_logprobs, score_prompts
from worker.engine.pooling import HiddenStates, pool
from worker.engine.request import TokenLogprobs
from worker.engine.sampler import sample
from worker.engine.scheduler import Chunk
from worker.lora.layers import LoRAContext
from worker.model.attention import AttentionStep, attention_step
from worker.model.kv_cache import KVCache
from worker.model.loader import LoadedModel


@dataclass(frozen=True, slots=True)
class Computed:
    """Result of one chunk of a step."""

    chunk: Chunk
    token: int | None
    """The sampled token; None if the chunk doesn't sample, -1 if no token could be sampled."""
    logprobs: TokenLogprobs | None
    """Log-probabilities of the token; None unless the request asks for them."""
    embedding: bytes | None = None
    """The request's embedding, in the form of `pool`; None if it isn't complete."""


class ModelRunner:
    """Runs forward passes with the model, the KV cache and the resident adapters."""

    def __init__(self, loaded: LoadedModel, cache: KVCache, context: LoRAContext) -> None:
        self._model = loaded.model
        self._kernels = loaded.kernels
        self._device = loaded.device
        self._cache = cache
        self._lora = context
        self._hidden = HiddenStates(loaded.model)

    @torch.inference_mode()
    def run(self, chunks: Sequence[Chunk]) -> list[Computed]:
        """Compute `chunks`, and sample a token for each chunk whose `samples` is set.

        Also extends `prompt_logprobs` of each request whose `scores_prompt` is set.

        Returns:
            A result for each chunk, in the same order.
        """
        batch = build_step(chunks, self._device)
        logits = self._forward(batch)
        sampled, scored = logits[: len(batch.sampled)], logits[len(batch.sampled) :]
        tokens = sample(sampled, batch.sampled) if batch.sampled else []
        score_prompts(scored, batch.scored)
        token_of = dict(zip((r.id for r in batch.sampled), tokens, strict=True))
        logprobs_of = sampled_logprobs(sampled, batch.sampled, tokens)
        embedding_of = pool(self._hidden.take(), batch.pooled) if batch.pooled else {}
        ids = [chunk.request.id for chunk in chunks]
        return [
            Computed(chunk, token_of.get(id_), logprobs_of.get(id_), embedding_of.get(id_))
            for chunk, id_ in zip(chunks, ids, strict=True)
        ]

    def _forward(self, batch: StepBatch) -> torch.Tensor:
        self._lora.set_batch(batch.segments, batch.logits_segments)
        self._hidden.is_wanted = bool(batch.pooled)
        with attention_step(AttentionStep(self._kernels, self._cache, batch.attention)):
            out = self._model(
                input_ids=batch.input_ids,
                position_ids=batch.positions,
                use_cache=False,
                logits_to_keep=batch.logits_rows,
            )
        logits: torch.Tensor = out.logits[0]
        return logits
