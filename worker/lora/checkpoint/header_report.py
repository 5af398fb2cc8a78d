"""Checks an adapter's size and reports its contents without reading the tensors' data."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import compress
from math import prod
from operator import not_

import torch

from shared.errors import AdapterRejected
from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.adapter_files import AdapterFiles
from worker.lora.checkpoint.safetensors_header import MAX_HEADER_BYTES, TensorInfo
from worker.lora.checkpoint.served_names import trained_modules_of
from worker.lora.checkpoint.tensor_names import parse_name
from worker.lora.checkpoint.trained_names import TrainedNames, trained_names

PREFIX = "base_model.model."
MAX_PROMPT_FILES = 16
"""Maximum number of files that shape prompts and sampling."""
MAX_PROMPT_FILE_BYTES = 2 << 20
"""Maximum bytes of each file that shapes prompts. Tokenizers' files have up to 1.2 MB."""
WIDEST_DTYPE_BYTES = 8
"""Bytes per element of the widest dtype in the safetensors format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderReport:
    """An adapter's tensor names, in file order, and its ranks."""

    matched: tuple[str, ...] = ()
    """Names of the tensors that belong to a module of the base model."""
    unmatched: tuple[str, ...] = ()
    """Names of the tensors that belong to no module of the base model."""
    ranks: tuple[tuple[int, int], ...] = ()
    """Pairs of a rank and the number of modules with that rank, sorted by rank."""
    trained_on: str | None = None
    """The base model that adapter_config.json names. None if the name can't be read."""


def report_headers(files: AdapterFiles, base: BaseModules) -> HeaderReport:
    """Report the contents of `files`, even if the adapter isn't supported.

    Files that can't be read are left out of the report.
    """
    trained_on = files.base_model_name
    trained_on = None if trained_on is None else trained_on[:200]
    try:
        tensors = files.header.tensors
    except (AdapterRejected, OSError):
        return HeaderReport(trained_on=trained_on)
    base = trained_modules_of(files.header, base)
    names = [str(name) for name in tensors]
    trained_as = trained_names(names, base)
    are_matched = [_is_of_base(name, base, trained_as) for name in names]
    return HeaderReport(
        matched=tuple(compress(names, are_matched)),
        unmatched=tuple(compress(names, map(not_, are_matched))),
        ranks=_ranks(tensors),
        trained_on=trained_on,
    )


def check_size(files: AdapterFiles, *, dtype: torch.dtype, max_bytes: int) -> None:
    """Check that reading `files` can't exhaust the machine's memory.

    Raises:
        AdapterRejected: the weights, cast to the pool's `dtype`, don't fit into its `max_bytes`, or
            a file is too large.
    """
    num_elements = sum(prod(info.shape) for info in files.header.tensors.values())
    if num_elements * dtype.itemsize > max_bytes:
        raise AdapterRejected(
            f"its {num_elements} weights take {num_elements * dtype.itemsize} bytes in "
            f"{str(dtype).removeprefix('torch.')}, over --adapter-memory-mb ({max_bytes} bytes); "
            "set it higher, or train a smaller rank"
        )
    weights = files.weights_path
    if weights.stat().st_size > 8 + MAX_HEADER_BYTES + num_elements * WIDEST_DTYPE_BYTES:
        raise AdapterRejected(
            f"{weights} is larger than the tensors that its header lists; save it again"
        )
    if len(files.prompt_paths) > MAX_PROMPT_FILES:
        raise AdapterRejected(f"it has more than {MAX_PROMPT_FILES} files beside its weights")
    for path in files.prompt_paths:
        if path.stat().st_size > MAX_PROMPT_FILE_BYTES:
            raise AdapterRejected(f"{path} has more than {MAX_PROMPT_FILE_BYTES} bytes")


def _is_of_base(tensor: str, base: BaseModules, trained_as: TrainedNames) -> bool:
    key = parse_name(tensor)
    module = key.module if key else tensor.removeprefix(PREFIX).partition(".lora_")[0]
    module = trained_as.served(module)
    return module in base.linears or module in base.others or module in base.tables


def _ranks(tensors: Mapping[str, TensorInfo]) -> tuple[tuple[int, int], ...]:
    """Count the modules by rank: the first dimension of their matrix A `[r, in]`."""
    counts = Counter(
        info.shape[0] for name, info in tensors.items() if _is_lora_a(name) and len(info.shape) == 2
    )
    return tuple(sorted(counts.items()))


def _is_lora_a(tensor: str) -> bool:
    return ".lora_A." in tensor or tensor.endswith((".lora_A", ".lora_embedding_A"))
