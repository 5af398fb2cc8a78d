"""Forms of one base model whose predictions are compared. All run on the CPU."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from ops.bench.probes.int8 import q8_0
from ops.bench.probes.int8.forms import BFLOAT16, INT8
from worker.kernels.interface import AttentionBatch
from worker.model.attention import AttentionStep, attention_step
from worker.model.kv_cache import BLOCK_SIZE, KVCache
from worker.model.loader import LoadedModel, load_model

Predict = Callable[[Tensor, int], Tensor]
"""Returns the logits `[num_logits, vocab]` in float32 that follow the last of the token ids.

The arguments are the token ids `[n]` and `num_logits`.
"""

FLOAT32 = "float32"


def variants(folder: Path) -> Mapping[str, Callable[[], Predict]]:
    """Return functions that load the forms of the model in `folder`, by name."""

    def served(dtype: Any, quantize: Any = None) -> Predict:
        return _served(load_model(str(folder), dtype=dtype, device="cpu", quantize=quantize))

    def q8(*, inputs: bool) -> Predict:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        q8_0.round_linears_(model, inputs=inputs)
        return _plain(model)

    return {
        FLOAT32: lambda: served("float32"),
        BFLOAT16: lambda: served("bfloat16"),
        INT8: lambda: served("bfloat16", INT8),
        # Without bfloat16's own rounding, as llama.cpp computes.
        "int8 in float32": lambda: served("float32", INT8),
        "Q8_0's weights in float32": lambda: q8(inputs=False),
        "Q8_0's weights and inputs in float32": lambda: q8(inputs=True),
    }


def _served(loaded: LoadedModel) -> Predict:
    """Compute as the engine does: by its kernels, with one sequence in the KV cache."""

    @torch.inference_mode()
    def predict(ids: Tensor, num_logits: int) -> Tensor:
        positions = torch.arange(len(ids))
        with attention_step(_step(loaded, len(ids))):
            logits: Tensor = loaded.model(
                input_ids=ids[None],
                position_ids=positions[None],
                logits_to_keep=positions[-num_logits:],
                use_cache=False,
            ).logits
        return logits[0].float()

    return predict


def _step(loaded: LoadedModel, num_tokens: int) -> AttentionStep:
    num_blocks = -(-num_tokens // BLOCK_SIZE)
    length = torch.tensor([num_tokens], dtype=torch.int32)
    batch = AttentionBatch(
        slots=torch.arange(num_tokens),
        query_starts=F.pad(length, (1, 0)),
        context_lens=length,
        block_tables=torch.arange(num_blocks, dtype=torch.int32)[None],
    )
    cache = KVCache(loaded.kv_shapes, num_blocks, dtype=loaded.dtype, device=loaded.device)
    return AttentionStep(loaded.kernels, cache, batch)


def _plain(model: PreTrainedModel) -> Predict:
    @torch.inference_mode()
    def predict(ids: Tensor, num_logits: int) -> Tensor:
        logits: Tensor = model(
            input_ids=ids[None], logits_to_keep=num_logits, use_cache=False
        ).logits
        return logits[0].float()

    return predict
