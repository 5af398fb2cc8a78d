"""Reads adapters, and changes the files in their folders."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.adapter import LoRAAdapter, read_checkpoint
from worker.lora.checkpoint.adapter_files import AdapterFiles

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
Tensors = dict[str, torch.Tensor]


def read_adapter(
    base: BaseModules, folder: Path, name: str = "a", dtype: torch.dtype = torch.float32
) -> LoRAAdapter:
    return read_checkpoint(name, AdapterFiles(folder), base, dtype=dtype)


def set_field(folder: Path, **fields: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | fields))


def change_tensors(folder: Path, change: Callable[[Tensors], Any]) -> None:
    """Let `change` change the adapter's tensors in place."""
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
