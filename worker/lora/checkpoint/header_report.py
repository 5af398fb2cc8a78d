"""What the headers of an adapter's files tell, be it fit to be served or not."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from shared.errors import AdapterRejected
from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.config import MAX_CONFIG_BYTES
from worker.lora.checkpoint.source import CONFIG_FILE, WEIGHTS_FILE, adapter_file, template_files
from worker.lora.checkpoint.tensor_file import MAX_HEADER_BYTES, TensorInfo, read_header
from worker.lora.checkpoint.tensor_names import parse_name

PREFIX = "base_model.model."
MAX_TEMPLATE_BYTES = 64 << 20
WIDEST_NUMBER = 8
"""Bytes of the largest dtype that safetensors has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """The tensors by name, in the file's order, and what they are for."""

    matched: tuple[str, ...] = ()
    """Belong to a module of the base model."""
    unmatched: tuple[str, ...] = ()
    ranks: tuple[tuple[int, int], ...] = ()
    """(rank, number of modules that have it), ascending."""
    trained_on: str | None = None
    """The base model by the adapter's own account."""


def describe(folder: Path, base: BaseModules) -> Description:
    """Describe the adapter in `folder` as far as its files can be read."""
    trained_on = _trained_on(folder)
    try:
        header = read_header(adapter_file(folder, WEIGHTS_FILE)).tensors
    except (AdapterRejected, OSError):
        return Description(trained_on=trained_on)
    names = [str(name) for name in header]
    matched = tuple(name for name in names if _is_of_base(name, base))
    return Description(
        matched=matched,
        unmatched=tuple(name for name in names if name not in set(matched)),
        ranks=_ranks(header),
        trained_on=trained_on,
    )


def check_size(folder: Path, *, dtype: torch.dtype, max_bytes: int) -> None:
    """Make sure that the files can be read without taking the machine's memory.

    Raises:
        AdapterRejected: the weights wouldn't fit into `max_bytes` in the pool's `dtype`, or a file
            is larger than what it says that it holds.
    """
    file = adapter_file(folder, WEIGHTS_FILE)
    num_elements = sum(prod(info.shape) for info in read_header(file).tensors.values())
    if num_elements * dtype.itemsize > max_bytes:
        raise AdapterRejected(
            f"its {num_elements} weights take {num_elements * dtype.itemsize} bytes in "
            f"{str(dtype).removeprefix('torch.')}, over --adapter-memory-mb ({max_bytes} bytes)"
        )
    if file.stat().st_size > 8 + MAX_HEADER_BYTES + num_elements * WIDEST_NUMBER:
        raise AdapterRejected(f"{file} is larger than the tensors that its header lists")
    for template in template_files(folder):
        if template.stat().st_size > MAX_TEMPLATE_BYTES:
            raise AdapterRejected(f"{template} has more than {MAX_TEMPLATE_BYTES} bytes")


def _trained_on(folder: Path) -> str | None:
    try:
        file = adapter_file(folder, CONFIG_FILE)
        if file.stat().st_size > MAX_CONFIG_BYTES:
            return None
        name = json.loads(file.read_bytes()).get("base_model_name_or_path")
    except (AdapterRejected, OSError, ValueError, RecursionError, AttributeError):
        return None
    return name[:200] if isinstance(name, str) else None


def _is_of_base(tensor: str, base: BaseModules) -> bool:
    key = parse_name(tensor)
    module = key.module if key else tensor.removeprefix(PREFIX).partition(".lora_")[0]
    return module in base.linears or module in base.others or module in base.tables


def _ranks(header: Mapping[str, TensorInfo]) -> tuple[tuple[int, int], ...]:
    """Of each module that has a matrix A, `[r, in]`."""
    counts = Counter(
        info.shape[0] for name, info in header.items() if _is_a(name) and len(info.shape) == 2
    )
    return tuple(sorted(counts.items()))


def _is_a(tensor: str) -> bool:
    return ".lora_A." in tensor or tensor.endswith((".lora_A", ".lora_embedding_A"))
