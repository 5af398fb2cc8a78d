"""Predictions of a tiny model's forms, against those of transformers."""

import math
from pathlib import Path

import pytest
import torch
from tiny import save_tiny_model
from transformers import AutoModelForCausalLM

from ops.bench.probes.int8.quality import SCORED, WINDOW, measure_quality, windows_of
from shared.errors import SettingsError
from worker.kernels.cpu.levels import cpu_flags, usable_levels

TEXT = "The worker reads its adapters at the start, and checks each of their files. " * 14
TOKENS = 2 * WINDOW + 10


@pytest.mark.skipif(not usable_levels(cpu_flags()), reason="needs an x86 CPU with AVX2")
def test_quantised_forms_are_compared_with_float32(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "tiny")
    windows = windows_of(folder, TEXT, TOKENS)
    lines: list[str] = []
    found = {one.variant: one for one in measure_quality(folder, windows, lines.append)}
    assert lines == [line for one in found.values() for line in one.lines()]
    assert lines[1].startswith("bfloat16: perplexity ")
    assert lines[2].startswith("bfloat16 from float32: KL ")

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        losses = [model(input_ids=ids[None], labels=_scored(ids)[None]).loss for ids in windows]
    assert len(windows) == 2
    assert found["float32"].perplexity == pytest.approx(math.exp(sum(losses) / 2), rel=1e-4)

    divergence = {name: one.deviations[0].kl for name, one in found.items() if one.deviations}
    coarser = ["Q8_0's weights in float32", "Q8_0's weights and inputs in float32"]
    assert 0 < divergence[coarser[0]] < divergence[coarser[1]]
    assert [one.reference for one in found["int8"].deviations] == ["float32", "bfloat16"]


def test_a_short_text_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "tiny")
    with pytest.raises(SettingsError, match="--tokens 2000: the text has only 1064 tokens"):
        windows_of(folder, TEXT, 2000)


def _scored(ids: torch.Tensor) -> torch.Tensor:
    """Return labels of the tokens that count, for a loss in transformers."""
    return torch.where(torch.arange(len(ids)) > len(ids) - SCORED, ids, -100)
