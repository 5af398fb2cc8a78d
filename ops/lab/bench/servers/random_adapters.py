"""Creates random adapters for benchmarks. They cost as much to serve as trained adapters."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

RANKS = (8, 16) * 4
"""Ranks of the adapters a0, a1, ..."""
MAX_RANK = max(RANKS)
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
B_STD = 0.02
"""Standard deviation of the random B weights.

B isn't left at PEFT's initial value, 0, because a server could skip adapters whose B is 0.
"""


def make_adapters(
    model: Path,
    target: Path,
    ranks: Sequence[int] = RANKS,
    modules: Sequence[str] = TARGETS,
) -> dict[str, Path]:
    """Write one bf16 PEFT adapter for each of `ranks`, made for the model in folder `model`.

    The adapters target the linear layers `modules` of every decoder layer. Equal arguments give
    equal files.

    Returns:
        A mapping from each adapter's name to its folder below `target`.
    """
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    folders = {}
    for index, rank in enumerate(ranks):
        torch.manual_seed(index)
        folders[f"a{index}"] = target / f"a{index}"
        base = _make_adapter(base, rank, list(modules), target / f"a{index}")
    return folders


def _make_adapter(base: Any, rank: int, modules: list[str], folder: Path) -> Any:
    """Write one adapter, and return the base model without the adapter."""
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=modules)
    with warnings.catch_warnings():
        # PEFT reads an attribute that transformers will rename.
        warnings.simplefilter("ignore", FutureWarning)
        adapted = get_peft_model(base, config, autocast_adapter_dtype=False)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=B_STD)
    adapted.save_pretrained(folder, save_embedding_layers=False)
    return adapted.unload()
