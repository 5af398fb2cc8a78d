"""The workload's adapters: random ones, which cost as much as trained ones."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

RANKS = (8, 16) * 4
"""Ranks of the adapters a0, a1, ..."""
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
B_STD = 0.02
"""PEFT starts with B = 0, with which an adapter would change nothing and could be skipped."""


def make_adapters(model: Path, target: Path) -> dict[str, Path]:
    """Write bf16 PEFT adapters of `RANKS` for the model in folder `model`, the same every time.

    Returns:
        Their folders below `target` by name.
    """
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    folders = {}
    for index, rank in enumerate(RANKS):
        torch.manual_seed(index)
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=TARGETS)
        adapted = get_peft_model(base, config, autocast_adapter_dtype=False)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=B_STD)
        folders[f"a{index}"] = target / f"a{index}"
        adapted.save_pretrained(target / f"a{index}", save_embedding_layers=False)
        base = adapted.unload()
    return folders
