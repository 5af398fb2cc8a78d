"""Predictions of a model that is trained here, whose weights were never rounded."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from tiny import tiny_model, tiny_tokenizer
from torch import Tensor

from worker.kernels.cpu.levels import cpu_flags, usable_levels
from worker.kernels.interface import AttentionBatch
from worker.model.attention import AttentionStep, attention_step
from worker.model.kv_cache import BLOCK_SIZE, KVCache
from worker.model.loader import LoadedModel, load_model

DOCS = Path(__file__).parents[3] / "ops" / "docs"
MARKUP = ("|", "#", "<", "!", "[", ">", "-", "`")
STEPS = 120
BATCH = 8
LENGTH = 64
TOKENS = 4096
WINDOW = 512
SCORED = WINDOW // 2
"""Predictions of a window that count: the last, which have the most context."""
UNTRAINED_PERPLEXITY = 262.0
"""Perplexity of a model that finds all tokens equally likely."""


@pytest.mark.slow
@pytest.mark.skipif(not usable_levels(cpu_flags()), reason="needs an x86 CPU with AVX2")
def test_int8_keeps_the_perplexity_of_a_trained_model_within_one_percent(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer(prose(), return_tensors="pt", verbose=False)["input_ids"][0]
    model = tiny_model(hidden_size=128, intermediate_size=256, initializer_range=0.02)
    train_(model, ids)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    windows = ids[:TOKENS].split(WINDOW)

    def perplexity(dtype: Any, quantize: Any = None) -> float:
        loaded = load_model(str(tmp_path), dtype=dtype, device="cpu", quantize=quantize)
        losses = [loss(loaded, window) for window in windows]
        return math.exp(sum(losses) / len(losses))

    assert perplexity("float32") < UNTRAINED_PERPLEXITY / 5
    assert perplexity("bfloat16", "int8") == pytest.approx(perplexity("bfloat16"), rel=0.01)


def prose() -> str:
    """Return the lines of the documentation that are neither tables nor headings nor lists."""
    lines = [line for page in sorted(DOCS.glob("*.md")) for line in page.read_text().splitlines()]
    return "\n".join(line for line in lines if line and not line.startswith(MARKUP))


def train_(model: torch.nn.Module, ids: Tensor) -> None:
    """Train the model on random parts of the text `ids`."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(STEPS):
        starts = torch.randint(0, len(ids) - LENGTH, (BATCH,)).tolist()
        batch = torch.stack([ids[start : start + LENGTH] for start in starts])
        optimizer.zero_grad()
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
    model.eval()


@torch.inference_mode()
def loss(loaded: LoadedModel, ids: Tensor) -> float:
    """Return the mean loss of a window's last tokens, computed as the engine does."""
    positions, length = torch.arange(len(ids)), torch.tensor([len(ids)], dtype=torch.int32)
    num_blocks = -(-len(ids) // BLOCK_SIZE)
    batch = AttentionBatch(
        slots=positions,
        query_starts=F.pad(length, (1, 0)),
        context_lens=length,
        block_tables=torch.arange(num_blocks, dtype=torch.int32)[None],
    )
    cache = KVCache(loaded.kv_shapes, num_blocks, dtype=loaded.dtype, device=loaded.device)
    with attention_step(AttentionStep(loaded.kernels, cache, batch)):
        logits = loaded.model(
            input_ids=ids[None],
            position_ids=positions[None],
            logits_to_keep=positions[-SCORED:],
            use_cache=False,
        ).logits[0]
    return float(F.cross_entropy(logits[:-1].float(), ids[-SCORED + 1 :]))
