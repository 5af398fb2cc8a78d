"""Checks that a model gives the same logits for packed requests as for each alone.

Some architectures ignore transformers' attention interface, or keep state besides keys and
values, with no more than a warning: what they would answer is wrong, so they are refused.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from shared.errors import ModelRejected
from worker.model.attention import AttentionBatch, AttentionGroup, attention_step
from worker.model.kv_cache import BLOCK_SIZE, KVCache, KVShape

_LENGTHS = [13, 5]
# Deviation of logits in their standard deviations: the worst of a position, the median over a
# sequence (in bfloat16 a mixture of experts may route one token otherwise). A model that mixes up
# its requests is off by about 1; rounding gives 1e-6 in float32 and about 0.03 in bfloat16.
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.3}


def check_rope(source: str, config: Any) -> None:
    """Refuse position encodings that depend on the longest request of a batch.

    Raises:
        ModelRejected: the configuration asks for one.
    """
    config = config.get_text_config()
    parameters = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    for rope in _rope_dicts(parameters or {}):
        kind = rope.get("rope_type", rope.get("type"))
        if kind in {"longrope", "dynamic"}:
            raise ModelRejected(
                f"--model {source}: rope_type {kind} makes a request's result depend on the "
                "longest request beside it, so it can't be served exactly"
            )


def verify_attention(
    source: str, model: PreTrainedModel, switch: Callable[[], list[KVShape]]
) -> list[KVShape]:
    """Compare eager attention on each sequence alone with paged attention on both packed.

    `switch` changes the model from the one to the other and gives the layers' shapes.

    Raises:
        ModelRejected: the logits differ by more than rounding.
    """
    vocab_size = int(model.config.get_text_config().vocab_size)
    generator = torch.Generator().manual_seed(0)
    sequences = [torch.randint(vocab_size, (n,), generator=generator) for n in _LENGTHS]
    with torch.inference_mode():
        alone = [_logits(model, ids.to(model.device)) for ids in sequences]
        shapes = switch()
        packed = torch.split(_packed_logits(model, sequences, shapes), _LENGTHS)
    deviation = max(_deviation(a, b) for a, b in zip(alone, packed, strict=True))
    if not deviation <= _TOLERANCE[model.dtype]:
        raise ModelRejected(
            f"--model {source}: {type(model).__name__} computes packed requests differently from "
            f"each alone (logits off by {deviation:.2g} of their spread), so it can't be served"
        )
    return shapes


def _deviation(expected: Tensor, got: Tensor) -> float:
    return float((got - expected).abs().amax(-1).median() / expected.std())


def _rope_dicts(parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """One rope dictionary, or one for each kind of layer."""
    nested = [value for value in parameters.values() if isinstance(value, dict)]
    return nested or [parameters]


def _logits(model: PreTrainedModel, ids: Tensor, **kwargs: Any) -> Tensor:
    logits: Tensor = model(input_ids=ids[None], use_cache=False, **kwargs).logits[0]
    return logits.float()


def _packed_logits(
    model: PreTrainedModel, sequences: list[Tensor], shapes: list[KVShape]
) -> Tensor:
    device = model.device
    cache = KVCache(shapes, len(sequences), dtype=model.dtype, device=device)
    positions = [torch.arange(len(ids), device=device) for ids in sequences]
    groups, start = [], 0
    for block, part in enumerate(positions):
        table = torch.tensor([[block]], device=device)
        groups.append(AttentionGroup(start, len(part), table, part[None]))
        start += len(part)
    slots = torch.cat([block * BLOCK_SIZE + part for block, part in enumerate(positions)])
    with attention_step(cache, AttentionBatch(slots, groups)):
        return _logits(
            model, torch.cat(sequences).to(device), position_ids=torch.cat(positions)[None]
        )
