"""Checks that a model computes the same logits for packed requests as for each request alone.

Packed requests are computed together in one forward pass. Some architectures ignore transformers'
attention interface, or keep state besides keys and values, without raising an error. The answers of
such a model would be wrong, so it is refused.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor
from transformers import PreTrainedModel

from shared.errors import ModelRejected
from worker.kernels.interface import AttentionBatch, Kernels
from worker.model.attention import AttentionStep, LayerProbe, attention_step
from worker.model.kv_cache import BLOCK_SIZE, KVCache, KVShape

_LENGTHS = [13, 5]
_NUM_SKIPPED = 1
"""Number of tokens at the start of each sequence whose logits the packed pass doesn't compute."""
_NUM_LOGITS = [length - _NUM_SKIPPED for length in _LENGTHS]
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
        if probe.params[layer].sliding_window != expected:
            raise ModelRejected(
                f"--model {source}: layer {layer} of {type(model).__name__} doesn't pass its "
                f"sliding window ({expected}) to the attention function, so the native engine "
                "can't serve the model exactly; try --engine vllm"
            )


class Verifier:
    """Checks that a model gives two packed sequences the same logits as each sequence alone.

    A packed pass computes the logits of only some tokens, like a step of the engine.
    """

    num_tokens = sum(_LENGTHS)
    """Number of tokens of the packed pass."""
    num_logits = sum(_NUM_LOGITS)
    """Number of tokens whose logits the packed pass computes."""

    def __init__(self, source: str, model: PreTrainedModel) -> None:
        """Compute the expected logits by eager attention.

        Raises:
            ModelRejected: the model isn't causal.
        """
        self._source = source
        self._model = model
        vocab_size = int(model.config.get_text_config().vocab_size)
        generator = torch.Generator().manual_seed(0)
        self._sequences = [torch.randint(vocab_size, (n,), generator=generator) for n in _LENGTHS]
        with torch.inference_mode():
            alone = [_logits(model, ids.to(model.device)) for ids in self._sequences]
            self._check_causal(alone[0])
        self._alone = [logits[_NUM_SKIPPED:] for logits in alone]

    def step(self, kernels: Kernels, shapes: list[KVShape]) -> AttentionStep:
        """Return the attention step for computing both sequences together."""
        device = self._model.device
        lens = torch.tensor(_LENGTHS, dtype=torch.int32, device=device)
        blocks = torch.arange(len(_LENGTHS), dtype=torch.int32, device=device)
        slots = [b * BLOCK_SIZE + torch.arange(n) for b, n in enumerate(_LENGTHS)]
        batch = AttentionBatch(
            slots=torch.cat(slots).to(device),
            query_starts=F.pad(lens.cumsum(0, dtype=torch.int32), (1, 0)),
            context_lens=lens,
            block_tables=blocks[:, None],
        )
        cache = KVCache(shapes, len(blocks), dtype=self._model.dtype, device=device)
        return AttentionStep(kernels, cache, batch)

    @torch.inference_mode()
    def check(self, step: AttentionStep, *, rounds_inputs: bool = False) -> None:
        """Compute both sequences together and compare the logits with the expected logits.

        Set `rounds_inputs` if linears now quantise their inputs, and didn't when the expected
        logits were computed.

        Raises:
            ModelRejected: the logits differ by more than rounding errors.
        """
        model = self._model
        ids = torch.cat(self._sequences).to(model.device)
        positions = torch.cat([torch.arange(n) for n in _LENGTHS]).to(model.device)
        rows = torch.nonzero(positions >= _NUM_SKIPPED).flatten()
        with attention_step(step):
            logits = _logits(model, ids, position_ids=positions[None], logits_to_keep=rows)
        if len(logits) != self.num_logits:
            raise ModelRejected(
                f"--model {self._source}: {type(model).__name__} doesn't return the logits of the "
                "requested tokens alone, so the native engine can't serve the model; "
                "try --engine vllm"
            )
        packed = torch.split(logits, _NUM_LOGITS)
        deviation = max(_deviation(a, b) for a, b in zip(self._alone, packed, strict=True))
        if not deviation <= (_QUANTISED if rounds_inputs else _TOLERANCE[model.dtype]):
            raise ModelRejected(
                f"--model {self._source}: {type(model).__name__} computes packed requests "
                f"differently from each request alone (logits deviate by {deviation:.2g} standard "
                "deviations), so the native engine can't serve the model; try --engine vllm"
            )

    def _check_causal(self, logits: Tensor) -> None:
        """Raise ModelRejected if the logits of a sequence's first tokens depend on later tokens.

        `logits` are those of the first sequence.
        """
        model = self._model
        start = self._sequences[0][: _LENGTHS[1]].to(model.device)
        if not _deviation(logits[: len(start)], _logits(model, start)) <= _TOLERANCE[model.dtype]:
            raise ModelRejected(
                f"--model {self._source}: {type(model).__name__} isn't causal, because a token's "
                "logits depend on later tokens; use another model"
            )


def _deviation(expected: Tensor, got: Tensor) -> float:
    return float((got - expected).abs().amax(-1).median() / expected.std())


def _logits(model: PreTrainedModel, ids: Tensor, **kwargs: Any) -> Tensor:
    logits: Tensor = model(input_ids=ids[None], use_cache=False, **kwargs).logits[0]
    return logits.float()
