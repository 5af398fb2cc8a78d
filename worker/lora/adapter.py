"""Reads a LoRA adapter in PEFT's format, exactly or not at all."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from shared.errors import AdapterRejected
from shared.ids import AdapterVersion
from shared.names import NAME_RULE, is_valid_name
from worker.lora.config import AdapterConfig, read_config
from worker.lora.copies import check_copies
from worker.lora.expected import Expected, expected_tensors, match_tensors
from worker.lora.modules import BaseModules
from worker.lora.pauses import pause
from worker.lora.prompting import Prompting, read_prompting
from worker.lora.side import SideWeights
from worker.lora.side_reader import SideReader
from worker.lora.source import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    adapter_file,
    adapter_folder,
    template_files,
)
from worker.lora.tensor_file import read_header, read_tensors
from worker.lora.tensor_names import Part, TensorKey
from worker.lora.tensors import AdapterTensors
from worker.lora.trained import trained_modules


@dataclass(frozen=True, slots=True, eq=False)
class LoRAWeights:
    """One targeted module: its output changes by `b @ (a @ x)`."""

    a: torch.Tensor
    """`[r, in]`"""
    b: torch.Tensor
    """`[out, r]`, `scaling` multiplied in; its transpose is contiguous, as the pool stores it."""
    scaling: float
    """What PEFT multiplies by: alpha / r, or alpha / sqrt(r) with rsLoRA."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoRAAdapter:
    """An adapter that is checked and ready for the pool."""

    name: str
    version: AdapterVersion
    digest: str
    """Of the weights and of the files that shape prompts and sampling; 64 hex digits."""
    weights_digest: str
    """Of the weights alone: what KV blocks depend on; 64 hex digits."""
    source: str
    """As given: a folder or a hub id."""
    folder: Path
    """Where the files are: the source's folder, or the hub's local copy."""
    rank: int
    """The largest of its modules'."""
    num_bytes: int
    """Of all its weights in the pool's dtype."""
    modules: Mapping[str, LoRAWeights]
    """By module name, in the model's order."""
    side: SideWeights = field(default_factory=SideWeights)
    """What else it changes."""
    prompting: Prompting = field(default_factory=Prompting)
    """How its prompts are made and its answers drawn."""


def read_adapter(name: str, source: str, base: BaseModules, *, dtype: torch.dtype) -> LoRAAdapter:
    """The adapter at `source`, a folder or a hub id, with weights of `dtype` on the CPU.

    Raises:
        AdapterRejected: it can't be served exactly as PEFT would; the message names the tensor,
            the field or the file.
    """
    if not is_valid_name(name):
        raise AdapterRejected(f"bad adapter name {name!r} ({NAME_RULE})")
    try:
        return _read(name, source, base, dtype)
    except AdapterRejected as error:
        raise AdapterRejected(f"adapter {name} from {source}: {error}") from error
    except OSError as error:
        raise AdapterRejected(f"adapter {name} from {source} can't be read: {error}") from error


def _read(name: str, source: str, base: BaseModules, dtype: torch.dtype) -> LoRAAdapter:
    folder = adapter_folder(source)
    config = read_config(adapter_file(folder, CONFIG_FILE))
    trained = trained_modules(config, base)
    linears = [module for module in trained.targets if module in base.linears]
    _check_layout(config, base, linears)
    tensors = _tensors(folder, expected_tensors(config, base, trained))
    check_copies(tensors, base, trained)
    modules = {module: _weights(tensors, module, config, dtype) for module in linears}
    low_rank = {module: (w.a, w.b, w.scaling) for module, w in modules.items()}
    side = SideReader(tensors, config, base, trained, dtype).read(low_rank)
    weights_digest = _weights_digest(tensors, config, modules)
    files = {file.name: file.read_bytes() for file in template_files(folder)}
    digest = _version_digest(weights_digest, files)
    return LoRAAdapter(
        name=name,
        version=AdapterVersion(f"{name}@{digest[:12]}"),
        digest=digest,
        weights_digest=weights_digest,
        source=source,
        folder=folder,
        rank=max(config.rank(module) for module in trained.targets),
        num_bytes=sum(w.a.nbytes + w.b.nbytes for w in modules.values()) + side.num_bytes,
        modules=modules,
        side=side,
        prompting=read_prompting(files),
    )


def _tensors(folder: Path, expected: Mapping[TensorKey, Expected]) -> AdapterTensors:
    """What the adapter's file holds; its header alone decides if the rest is read."""
    file = adapter_file(folder, WEIGHTS_FILE)
    header = read_header(file)
    names = match_tensors(header, expected)
    return AdapterTensors(read_tensors(file, header), names)


def _check_layout(config: AdapterConfig, base: BaseModules, linears: list[str]) -> None:
    """PEFT sets fan_in_fan_out by what it meets, so another value is from another model."""
    if linears and config.fan_in_fan_out not in {module in base.conv1d for module in linears}:
        raise AdapterRejected(
            f"fan_in_fan_out={config.fan_in_fan_out} doesn't fit the base model's {linears[0]}"
        )


def _weights(
    tensors: AdapterTensors, module: str, config: AdapterConfig, dtype: torch.dtype
) -> LoRAWeights:
    """Scaling goes into B before the cast; in float32 that differs from PEFT's order by an ulp."""
    scaling = config.scaling(module)
    a = tensors.cast(TensorKey(module, Part.LORA_A), dtype)
    b = tensors.cast(TensorKey(module, Part.LORA_B), dtype, scaling)
    return LoRAWeights(a, b.t().contiguous().t(), scaling)


def _weights_digest(
    tensors: AdapterTensors, config: AdapterConfig, modules: Mapping[str, LoRAWeights]
) -> str:
    """SHA-256 over what each module computes: its name, scaling, and tensors as in the file."""
    sha = hashlib.sha256()
    low_rank = []
    for module in sorted(modules):
        pause()
        pair = [TensorKey(module, part) for part in (Part.LORA_A, Part.LORA_B)]
        tensors.hash_into(sha, [module, modules[module].scaling.hex()], pair)
        low_rank += pair
    for key in tensors.others(low_rank):
        pause()
        tensors.hash_into(sha, [str(key), config.scaling(key.module).hex()], [key])
    if config.token_indices:
        sha.update(json.dumps(list(config.token_indices.items())).encode())
    return sha.hexdigest()


def _version_digest(weights_digest: str, files: Mapping[str, bytes]) -> str:
    sha = hashlib.sha256(weights_digest.encode())
    for name, content in files.items():
        sha.update(json.dumps([name, hashlib.sha256(content).hexdigest()]).encode())
    return sha.hexdigest()
