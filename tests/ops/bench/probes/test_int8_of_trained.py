"""Predictions of a model that is trained here, whose weights were never rounded."""

from pathlib import Path

import pytest
import torch
from tiny import tiny_model, tiny_tokenizer
from torch import Tensor

from ops.bench.probes.int8.quality import measure_quality, windows_of
from ops.bench.probes.int8.text import prose
from worker.kernels.cpu.levels import cpu_flags, usable_levels

STEPS = 120
BATCH = 8
LENGTH = 64
TOKENS = 4096
UNTRAINED_PERPLEXITY = 262.0
"""Perplexity of a model that finds all tokens equally likely."""


@pytest.mark.slow
@pytest.mark.skipif(not usable_levels(cpu_flags()), reason="needs an x86 CPU with AVX2")
def test_int8_keeps_the_perplexity_of_a_trained_model_within_one_percent(tmp_path: Path) -> None:
    text, tokenizer = prose(), tiny_tokenizer()
    model = tiny_model(hidden_size=128, intermediate_size=256, initializer_range=0.02)
    train_(model, tokenizer(text, return_tensors="pt", verbose=False)["input_ids"][0])
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    windows = windows_of(tmp_path, text, TOKENS)
    found = {one.variant: one for one in measure_quality(tmp_path, windows, lambda _: None)}
    assert found["float32"].perplexity < UNTRAINED_PERPLEXITY / 5
    from_bfloat16 = found["int8"].deviations[1]
    assert from_bfloat16.reference == "bfloat16"
    assert from_bfloat16.perplexity_ratio == pytest.approx(1, abs=0.01)


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
