"""Runs the model and the sampler for one step."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import torch

from shared.errors import JobError
from worker.engine.batch import StepBatch, build_step
from worker.engine.logprobs import prompt_logprobs, sampled_logprobs
from worker.engine.pace import MemoryLimit
from worker.engine.pooling import HiddenStates, pool
from worker.engine.request import Request, SampledRow, TokenLogprobs
from worker.engine.rules import OUT_OF_MEMORY, STEP_FAILED
from worker.engine.sampler import decide_, draw
from worker.engine.scheduler import Chunk, split
from worker.kernels.transfer import Pending, read_all
from worker.lora.layers import LoRAContext
from worker.model.attention import AttentionStep, attention_step
from worker.model.kv_cache import KVCache
from worker.model.loader import LoadedModel
from worker.model.out_of_memory import free_unused, is_out_of_memory
from worker.model.recurrent import RecurrentStep, StatePool


@dataclass(frozen=True, slots=True)
class Sample:
    """A sampled token."""

    token: int
    """Token id; -1 if no token could be sampled."""
    logprobs: TokenLogprobs | None = None
    """Log-probabilities of the token; None unless the request asks for them."""


@dataclass(frozen=True, slots=True)
class Computed:
    """Result of one chunk of a step."""

    chunk: Chunk
    samples: tuple[Sample, ...] = ()
    """Tokens sampled after the request's last token and after each draft token, if any."""
    embedding: bytes | None = None
    """The request's embedding, as `pool` returns it; None if it isn't complete."""


class ModelRunner:
    """Runs forward passes with the model, the KV cache and the resident adapters."""

    def __init__(
        self,
        loaded: LoadedModel,
        cache: KVCache,
        context: LoRAContext,
        states: StatePool | None = None,
    ) -> None:
        """Create a runner. `states` are needed for a model with recurrent layers."""
        self._model = loaded.model
        self._kernels = loaded.kernels
        self._device = loaded.device
        self._cache = cache
        self._states = states
        self._lora = context
        self._hidden = HiddenStates(loaded.model)

    @property
    def has_states(self) -> bool:
        """See `Runner.has_states`."""
        return self._states is not None

    def close(self) -> None:
        """Remove the runner's hook from the model. The runner can't be used any more."""
        self._hidden.close()

    @torch.inference_mode()
    def run(self, chunks: Sequence[Chunk]) -> list[Computed]:
        """Compute `chunks`, sample the `num_samples` tokens of each, and return their results.

        Also extends `prompt_logprobs` of each request whose `scores_prompt` is set.
        """
        batch = build_step(chunks, self._device)
        logits = self._forward(batch)
        sampled, scored = logits[: len(batch.sampled)], logits[len(batch.sampled) :]
        of_prompts = prompt_logprobs(scored, batch.scored)
        embeddings = pool(self._hidden.take(), batch.pooled) if batch.pooled else None
        others = [of_prompts] if embeddings is None else [of_prompts, embeddings]
        tokens, logprobs_of = sample_and_read(sampled, batch.sampled, *others)
        for (request, _), logprobs in zip(batch.scored, of_prompts.value(), strict=True):
            request.prompt_logprobs.append(logprobs)
        samples = (Sample(token, logprobs_of.get(row)) for row, token in enumerate(tokens))
        samples_of = {
            chunk.request.id: tuple(islice(samples, chunk.num_samples))
            for chunk in batch.sampled_chunks
        }
        embedding_of = embeddings.value() if embeddings else {}
        ids = [chunk.request.id for chunk in chunks]
        return [
            Computed(chunk, samples_of.get(id_, ()), embedding_of.get(id_))
            for chunk, id_ in zip(chunks, ids, strict=True)
        ]

    def _forward(self, batch: StepBatch) -> torch.Tensor:
        recurrent = None
        if self._states is not None:
            recurrent = RecurrentStep(self._states, batch.groups, self._lora.entering_group)
        group_sizes = [group.size for group in batch.groups] if recurrent else []
        self._lora.set_batch(batch.segments, batch.logits_segments, group_sizes)
        self._hidden.is_wanted = bool(batch.pooled)
        step = AttentionStep(self._kernels, self._cache, batch.attention, recurrent)
        with attention_step(step):
            out = self._model(
                input_ids=batch.input_ids,
                position_ids=batch.positions,
                use_cache=False,
                logits_to_keep=batch.logits_rows,
            )
        logits: torch.Tensor = out.logits[0]
        return logits


def sample_and_read(
    logits: torch.Tensor, rows: Sequence[SampledRow], *others: Pending[Any]
) -> tuple[list[int], dict[int, TokenLogprobs]]:
    """Return a sampled token for each row, and log-probabilities by row index.

    The transfer that reads the tokens to the host also reads the tensors of `others`.
    """
    if not rows:
        read_all(*others)
        return [], {}
    tokens = draw(logits, rows)
    drawn = Pending([tokens], lambda arrays: arrays[0])
    logprobs = sampled_logprobs(logits, rows, tokens)
    read_all(drawn, logprobs, *others)
    if decide_(tokens, drawn.value(), logits, rows):
        logprobs = sampled_logprobs(logits, rows, tokens)
        read_all(drawn, logprobs)
    return drawn.value().tolist(), logprobs.value()


class Runner(Protocol):
    """Computes chunks in one forward pass."""

    @property
    def has_states(self) -> bool:
        """Whether a pass changes recurrent states.

        If such a pass fails, its requests have to be computed again from their first tokens."""

    def run(self, chunks: Sequence[Chunk]) -> list[Computed]:
        """Compute `chunks`. After an error, the same tokens can be computed again."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """Result of one step."""

    computed: list[Computed] = field(default_factory=list)
    """Results of the chunks, or of their parts, in the order of their computation."""
    failed: list[tuple[Request, JobError]] = field(default_factory=list)
    """Requests that end with an error. The results of their other chunks must be ignored."""
    lost: list[Request] = field(default_factory=list)
    """Requests whose recurrent states a failed pass may have changed, in the step's order."""


class StepRunner:
    """Computes a step in one forward pass, or in several if the memory doesn't suffice for one.

    A pass that runs out of memory is repeated with half as many tokens. Tokens are sampled in the
    pass that computes them, as a function of their logits, so repeating a pass doesn't change them.
    If the pass has changed recurrent states, it isn't repeated, but its requests are lost.
    """

    def __init__(self, runner: Runner, device: torch.device, *, max_tokens: int) -> None:
        """Create a runner of steps with at most `max_tokens` tokens."""
        self._runner = runner
        self._device = device
        self._limit = MemoryLimit(max_tokens)
        self.num_out_of_memory = 0
        """Number of forward passes that ran out of memory."""

    def run(self, chunks: Sequence[Chunk]) -> StepResult:
        """Compute a step. An error in a pass ends only the requests of this pass."""
        result = StepResult()
        remaining = list(chunks)
        while remaining:
            part, rest = split(remaining, self._limit.num_tokens)
            outcome = self._run_pass(part)
            if isinstance(outcome, JobError):
                result.failed.extend((chunk.request, outcome) for chunk in part)
                remaining = _without(rest, part)
            elif outcome is not None:
                result.computed.extend(outcome)
                remaining = rest
            elif self._runner.has_states:
                result.lost.extend(chunk.request for chunk in part)
                remaining = _without(rest, part)
        return result

    def _run_pass(self, chunks: Sequence[Chunk]) -> list[Computed] | JobError | None:
        """Run one pass. Return its results, an error for all its requests, or None to retry it."""
        try:
            computed = self._runner.run(chunks)
        except Exception as error:  # per step: it becomes an error of each request in the pass
            if not is_out_of_memory(error):
                log = _log()
                log.exception("step_failed", requests=[chunk.request.id for chunk in chunks])
                return STEP_FAILED
        else:
            self._limit.record_pass()
            return computed
        # The exception is gone here. It referred to the tensors of the failed pass.
        return self._shrink(chunks)

    def _shrink(self, chunks: Sequence[Chunk]) -> JobError | None:
        """Halve the limit of a pass. Return an error if the failed pass had only one token."""
        free_unused(self._device)
        self.num_out_of_memory += 1
        num_tokens = sum(chunk.num_tokens for chunk in chunks)
        self._limit.halve(num_tokens)
        _log().warning(
            "out_of_memory",
            num_tokens=num_tokens,
            retried_with=self._limit.num_tokens if num_tokens > 1 else None,
            requests=[chunk.request.id for chunk in chunks],
        )
        return OUT_OF_MEMORY if num_tokens == 1 else None


def _without(chunks: Sequence[Chunk], others: Sequence[Chunk]) -> list[Chunk]:
    """Return the chunks whose requests have no chunk in `others`."""
    ids = {chunk.request.id for chunk in others}
    return [chunk for chunk in chunks if chunk.request.id not in ids]


def _log() -> Any:
    # Imported here, so that the GPU benchmark needs only torch and its companions.
    import structlog

    return structlog.get_logger()
