"""Checks that a model computes the same logits for packed requests as for each request alone.

Packed requests are computed together in one forward pass. Some architectures ignore transformers'
attention interface, or keep state besides keys and values, without raising an error. The answers of
such a model would be wrong, so it is refused.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from shared.errors import ModelRejected
from worker.kernels.interface import AttentionBatch, Kernels
from worker.model.attention import AttentionStep, LayerProbe, attention_step
from worker.model.cache_shape import CacheShape
from worker.model.kv_cache import BLOCK_SIZE, KVCache
from worker.model.recurrent import NO_SLOT, RecurrentStep, StatePool, groups_of, mixers

_LENGTHS = [13, 5]
_EQUAL_LENGTHS = [9, 9]
"""Lengths for a model with recurrent layers.

Sequences of equal length form one group, so that each linear is called once, as in other models."""
_NUM_FIRST = [8, 4]
"""Number of tokens of each sequence in the first of two passes."""
_NUM_SKIPPED = 1
"""Number of tokens at the start of each sequence whose logits the packed pass doesn't compute."""
# Largest deviation of the logits, in standard deviations of the logits. The deviation is the
# maximum over the vocabulary, then the median over the sequence, because in bfloat16 a mixture of
# experts may route single tokens differently. A model that mixes up its requests deviates by about
# 1. Rounding causes 1e-6 in float32 and about 0.03 in bfloat16.
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.3}
_QUANTISED = 1.5
"""Largest allowed deviation of the logits, in standard deviations, if linears quantise inputs.

The demo model deviates by 0.5. With wrong products, logits deviate by about 6."""


def check_rope(source: str, config: Any) -> None:
    """Raise ModelRejected if position encodings depend on the longest request of a batch."""
    config = config.get_text_config()
    parameters = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    per_kind = [value for value in (parameters or {}).values() if isinstance(value, dict)]
    for rope in per_kind or [parameters or {}]:
        kind = rope.get("rope_type", rope.get("type"))
        if kind in {"longrope", "dynamic"}:
            raise ModelRejected(
                f"--model {source}: rope_type {kind} makes a request's result depend on the "
                "longest request in its batch, so the native engine can't serve the model exactly; "
                "try --engine vllm"
            )


def check_windows(source: str, model: PreTrainedModel, probe: LayerProbe) -> None:
    """Check that each layer passes its sliding window to the attention function.

    Some models apply the window only by a mask, which the attention function doesn't get. The
    sequences that `Verifier` computes are too short to show the difference.

    Raises:
        ModelRejected: a layer passes a window that differs from the one in its configuration.
    """
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    for layer, kind in enumerate(getattr(config, "layer_types", None) or ()):
        expected = window if kind == "sliding_attention" else None
        if layer in probe.params and probe.params[layer].sliding_window != expected:
            raise ModelRejected(
                f"--model {source}: layer {layer} of {type(model).__name__} doesn't pass its "
                f"sliding window ({expected}) to the attention function, so the native engine "
                "can't serve the model exactly; try --engine vllm"
            )


class Verifier:
    """Checks that a model gives two packed sequences the same logits as each sequence alone.

    A packed pass computes the logits of only some tokens, like a step of the engine.
    """

    def __init__(self, source: str, model: PreTrainedModel) -> None:
        """Compute the expected logits by eager attention.

        Raises:
            ModelRejected: the model isn't causal.
        """
        self._source = source
        self._model = model
        self._lengths = _EQUAL_LENGTHS if mixers(model) else _LENGTHS
        self.num_tokens = sum(self._lengths)
        """Number of tokens of the packed pass."""
        self.num_logits = self.num_tokens - _NUM_SKIPPED * len(self._lengths)
        """Number of tokens whose logits the packed pass computes."""
        vocab_size = int(model.config.get_text_config().vocab_size)
        generator = torch.Generator().manual_seed(0)
        self._sequences = [
            torch.randint(vocab_size, (n,), generator=generator) for n in self._lengths
        ]
        with torch.inference_mode():
            alone = [_logits(model, ids.to(model.device)) for ids in self._sequences]
            self._check_causal(alone[0])
        self._alone = [logits[_NUM_SKIPPED:] for logits in alone]

    def step(self, kernels: Kernels, shape: CacheShape) -> AttentionStep:
        """Return the attention step for computing both sequences together."""
        device, num_sequences = self._model.device, len(self._lengths)
        cache = KVCache(shape.kv, num_sequences, dtype=self._model.dtype, device=device)
        states = StatePool(shape.states, num_sequences, device) if shape.states else None
        return self._step(kernels, cache, states, [0] * num_sequences, self._lengths)

    @torch.inference_mode()
    def check(self, step: AttentionStep, *, rounds_inputs: bool = False) -> None:
        """Compute both sequences together and compare the logits with the expected logits.

        Set `rounds_inputs` if linears now quantise their inputs, and didn't when the expected
        logits were computed.

        Raises:
            ModelRejected: the logits differ by more than rounding errors.
        """
        packed = self._packed(step, [0] * len(self._lengths), self._lengths)
        if sum(map(len, packed)) != self.num_logits:
            raise ModelRejected(
                f"--model {self._source}: {type(self._model).__name__} doesn't return the logits "
                "of the requested tokens alone, so the native engine can't serve the model; "
                "try --engine vllm"
            )
        self._compare(packed, "packed requests", rounds_inputs=rounds_inputs)

    @torch.inference_mode()
    def check_continued(self, step: AttentionStep, *, rounds_inputs: bool = False) -> None:
        """Like `check`, but compute the sequences in two passes.

        In the second pass, recurrent layers continue from the states after the first one. Models
        without such layers aren't checked. `step` is the result of the method of this name.

        Raises:
            ModelRejected: the logits differ by more than rounding errors.
        """
        if step.recurrent is None:
            return
        first, last = [0] * len(self._lengths), self._lengths
        parts = [
            self._packed(
                self._step(step.kernels, step.cache, step.recurrent.states, starts, ends),
                starts,
                ends,
            )
            for starts, ends in ((first, _NUM_FIRST), (_NUM_FIRST, last))
        ]
        joined = [torch.cat(of_sequence) for of_sequence in zip(*parts, strict=True)]
        self._compare(joined, "the rest of a prompt", rounds_inputs=rounds_inputs)

    def _step(
        self,
        kernels: Kernels,
        cache: KVCache,
        states: StatePool | None,
        starts: Sequence[int],
        ends: Sequence[int],
    ) -> AttentionStep:
        """Return the step that computes the tokens `starts[i]` to `ends[i] - 1` of sequence i."""
        device, numbers = self._model.device, range(len(starts))
        lengths = [end - start for start, end in zip(starts, ends, strict=True)]
        places = [BLOCK_SIZE * i + torch.arange(starts[i], ends[i]) for i in numbers]
        batch = AttentionBatch(
            slots=torch.cat(places).to(device),
            query_starts=_int32([0, *accumulate(lengths)], device),
            context_lens=_int32(ends, device),
            block_tables=_int32(numbers, device)[:, None],
        )
        if states is None:
            return AttentionStep(kernels, cache, batch)
        slots = torch.tensor([i + 1 for i in numbers], device=device)
        is_new = torch.tensor([start == 0 for start in starts], device=device)
        groups = groups_of(lengths, slots.masked_fill(is_new, NO_SLOT), slots)
        return AttentionStep(kernels, cache, batch, RecurrentStep(states, groups))

    def _packed(
        self, step: AttentionStep, starts: Sequence[int], ends: Sequence[int]
    ) -> list[Tensor]:
        """Compute parts of the sequences in one pass. Return the logits of each part.

        The first `_NUM_SKIPPED` tokens of a sequence are left out.
        """
        device, bounds = self._model.device, list(zip(starts, ends, strict=True))
        ids = [ids[start:end] for ids, (start, end) in zip(self._sequences, bounds, strict=True)]
        positions = torch.cat([torch.arange(*part) for part in bounds]).to(device)
        rows = torch.nonzero(positions >= _NUM_SKIPPED).flatten()
        with attention_step(step):
            logits = _logits(
                self._model,
                torch.cat(ids).to(device),
                position_ids=positions[None],
                logits_to_keep=rows,
            )
        if len(logits) != len(rows):
            return [logits]
        return list(torch.split(logits, [end - max(start, _NUM_SKIPPED) for start, end in bounds]))

    def _compare(self, got: Sequence[Tensor], what: str, *, rounds_inputs: bool) -> None:
        """Raise ModelRejected if the logits `got` of `what` differ from the expected ones."""
        model = self._model
        deviation = max(_deviation(a, b) for a, b in zip(self._alone, got, strict=True))
        if not deviation <= (_QUANTISED if rounds_inputs else _TOLERANCE[model.dtype]):
            raise ModelRejected(
                f"--model {self._source}: {type(model).__name__} computes {what} "
                f"differently from each request alone (logits deviate by {deviation:.2g} standard "
                "deviations), so the native engine can't serve the model; try --engine vllm"
            )

    def _check_causal(self, logits: Tensor) -> None:
        """Raise ModelRejected if the logits of a sequence's first tokens depend on later tokens.

        `logits` are those of the first sequence.
        """
        model = self._model
        start = self._sequences[0][: self._lengths[0] // 2].to(model.device)
        if not _deviation(logits[: len(start)], _logits(model, start)) <= _TOLERANCE[model.dtype]:
            raise ModelRejected(
                f"--model {self._source}: {type(model).__name__} isn't causal, because a token's "
                "logits depend on later tokens; use another model"
            )


def _int32(numbers: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int32, device=device)


def _deviation(expected: Tensor, got: Tensor) -> float:
    return float((got - expected).abs().amax(-1).median() / expected.std())


def _logits(model: PreTrainedModel, ids: Tensor, **kwargs: Any) -> Tensor:
    logits: Tensor = model(input_ids=ids[None], use_cache=False, **kwargs).logits[0]
    return logits.float()
