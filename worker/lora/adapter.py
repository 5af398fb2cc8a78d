"""Reads a LoRA adapter in PEFT's format, exactly or not at all."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from shared.errors import AdapterRejected
from shared.ids import AdapterVersion
from shared.names import NAME_RULE, is_valid_name
from worker.lora.config import AdapterConfig, read_config
from worker.lora.modules import BaseModules
from worker.lora.pauses import pause
from worker.lora.source import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    adapter_file,
    adapter_folder,
    template_files,
)
from worker.lora.tensor_file import FLOATS, TensorInfo, is_finite, read_header, read_tensors

# `base_model.model.<module>.lora_A.weight`; some writers put the adapter's name before `weight`.
_TENSOR = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])(\.[^.]+)?\.weight")


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
    targets = base.targets(config.targeting)
    _check_layout(config, base, targets)
    file = adapter_file(folder, WEIGHTS_FILE)
    header = read_header(file)
    names = _match(header, base, targets, config)
    tensors = read_tensors(file, header)
    modules = {
        module: _weights(tensors, names[module], config.scaling(module), dtype)
        for module in targets
    }
    weights_digest = _weights_digest(tensors, names, modules)
    digest = _version_digest(weights_digest, template_files(folder))
    return LoRAAdapter(
        name=name,
        version=AdapterVersion(f"{name}@{digest[:12]}"),
        digest=digest,
        weights_digest=weights_digest,
        source=source,
        folder=folder,
        rank=max(config.rank(module) for module in targets),
        num_bytes=sum(w.a.nbytes + w.b.nbytes for w in modules.values()),
        modules=modules,
    )


def _check_layout(config: AdapterConfig, base: BaseModules, targets: list[str]) -> None:
    """PEFT sets fan_in_fan_out by what it meets, so another value is from another model."""
    if config.fan_in_fan_out not in {module in base.conv1d for module in targets}:
        raise AdapterRejected(
            f"fan_in_fan_out={config.fan_in_fan_out} doesn't fit the base model's {targets[0]}"
        )


def _match(
    header: Mapping[str, TensorInfo], base: BaseModules, targets: list[str], config: AdapterConfig
) -> dict[str, tuple[str, str]]:
    """The names of each target's two tensors, A and B; checks the shape and dtype of each."""
    found: dict[tuple[str, str], str] = {}
    wanted = set(targets)
    for name in header:
        match = _TENSOR.fullmatch(name)
        if match is None or match["module"] not in wanted:
            raise AdapterRejected(f"tensor {name} belongs to no targeted module")
        key = match["module"], match["side"]
        if key in found:
            raise AdapterRejected(f"tensors {found[key]} and {name} are for the same module")
        found[key] = name
    for module in targets:
        shape, rank = base.linears[module], config.rank(module)
        for side, expected in ("A", (rank, shape.in_features)), ("B", (shape.out_features, rank)):
            _check_tensor(header, found.get((module, side)), module, side, expected)
    return {module: (found[module, "A"], found[module, "B"]) for module in targets}


def _check_tensor(
    header: Mapping[str, TensorInfo],
    name: str | None,
    module: str,
    side: str,
    expected: tuple[int, int],
) -> None:
    if name is None:
        raise AdapterRejected(f"tensor base_model.model.{module}.lora_{side}.weight is missing")
    info = header[name]
    if info.shape != expected:
        raise AdapterRejected(
            f"tensor {name} has shape {list(info.shape)}, expected {list(expected)}"
        )
    if info.dtype not in FLOATS:
        raise AdapterRejected(f"tensor {name} has dtype {info.dtype}, expected {'/'.join(FLOATS)}")


def _weights(
    tensors: Mapping[str, torch.Tensor],
    names: tuple[str, str],
    scaling: float,
    dtype: torch.dtype,
) -> LoRAWeights:
    """Scaling goes into B before the cast; in float32 that differs from PEFT's order by an ulp."""
    a = tensors[names[0]].to(dtype).contiguous()
    b = (tensors[names[1]].double().t() * scaling).to(dtype).contiguous().t()
    for name, tensor in zip(names, (a, b), strict=True):
        if tensor is not tensors[name] and not is_finite(tensor):
            raise AdapterRejected(f"tensor {name} overflows {dtype} (scaling {scaling})")
    return LoRAWeights(a, b, scaling)


def _weights_digest(
    tensors: Mapping[str, torch.Tensor],
    names: Mapping[str, tuple[str, str]],
    modules: Mapping[str, LoRAWeights],
) -> str:
    """SHA-256 over what each module computes: its name, scaling, and tensors as in the file."""
    sha = hashlib.sha256()
    for module in sorted(modules):
        pause()
        pair = [tensors[name] for name in names[module]]
        facts = [module, modules[module].scaling.hex()]
        facts += [f"{t.dtype}{list(t.shape)}" for t in pair]
        sha.update(json.dumps(facts).encode())
        for tensor in pair:
            sha.update(tensor.contiguous().view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _version_digest(weights_digest: str, files: list[Path]) -> str:
    sha = hashlib.sha256(weights_digest.encode())
    for file in files:
        sha.update(json.dumps([file.name, hashlib.sha256(file.read_bytes()).hexdigest()]).encode())
    return sha.hexdigest()
