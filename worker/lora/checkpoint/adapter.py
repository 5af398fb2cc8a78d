"""Reads a LoRA adapter in PEFT's format, exactly or not at all."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch

from shared.adapter_names import NAME_RULE, is_valid_name
from shared.errors import AdapterRejected
from shared.protocol.ids import AdapterVersion
from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.config import AdapterConfig, parse_config, read_config
from worker.lora.checkpoint.low_rank import LowRank, LowRankStack
from worker.lora.checkpoint.manifest import Contents, contents_of
from worker.lora.checkpoint.prompting import Prompting, read_prompting
from worker.lora.checkpoint.side_reader import SideReader
from worker.lora.checkpoint.source import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    adapter_file,
    adapter_folder,
    template_files,
)
from worker.lora.checkpoint.tensor_file import read_header, read_tensors
from worker.lora.checkpoint.tensors import AdapterTensors
from worker.lora.checkpoint.tied_tensors import check_copies
from worker.lora.side.weights import SideWeights
from worker.lora.throttle import pause


class Digests(NamedTuple):
    """What tells a version from all others; 64 hex digits each."""

    version: str
    """Of the weights and of the files that shape prompts and sampling."""
    weights: str
    """Of the weights alone: what KV blocks depend on."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoRAAdapter:
    """An adapter that is checked and ready for the pool."""

    name: str
    version: AdapterVersion
    digest: str
    """`Digests.version`."""
    weights_digest: str
    """`Digests.weights`."""
    source: str
    """As given: a folder or a hub id."""
    folder: Path
    """Where the files are: the source's folder, or the hub's local copy."""
    rank: int
    """The largest of its modules'."""
    num_bytes: int
    """Of all its weights in the pool's dtype."""
    modules: LowRank
    """What the targeted linears have."""
    side: SideWeights = field(default_factory=SideWeights)
    """What else it changes."""
    prompting: Prompting = field(default_factory=Prompting)
    """How its prompts are made and its answers drawn."""

    def named(self, name: str) -> "LoRAAdapter":
        """The same under another name."""
        return replace(self, name=name, version=version_of(name, self.digest))


def version_of(name: str, digest: str) -> AdapterVersion:
    """What an adapter of this name and digest is called."""
    return AdapterVersion(f"{name}@{digest[:12]}")


def read_adapter(
    name: str,
    source: str,
    base: BaseModules,
    *,
    dtype: torch.dtype,
    checked: Digests | None = None,
) -> LoRAAdapter:
    """The adapter at `source`, a folder or a hub id, with weights of `dtype` on the CPU.

    `checked` are the digests of these very files, if they were read before and nobody has touched
    them since: then all numbers needn't be looked at again.

    Raises:
        AdapterRejected: it can't be served exactly as PEFT would; the message names the tensor,
            the field or the file.
    """
    if not is_valid_name(name):
        raise AdapterRejected(f"bad adapter name {name!r} ({NAME_RULE})")
    try:
        return _read(name, source, base, dtype, checked)
    except AdapterRejected as error:
        raise AdapterRejected(f"adapter {name} from {source}: {error}") from error
    except OSError as error:
        raise AdapterRejected(f"adapter {name} from {source} can't be read: {error}") from error


def _read(
    name: str, source: str, base: BaseModules, dtype: torch.dtype, checked: Digests | None
) -> LoRAAdapter:
    folder = adapter_folder(source)
    config = parse_config(read_config(adapter_file(folder, CONFIG_FILE)))
    file = adapter_file(folder, WEIGHTS_FILE)
    header = read_header(file)
    contents = contents_of(config, header, base)  # decides if the rest is read
    tensors = AdapterTensors(
        read_tensors(file, header), contents.names, are_checked=checked is not None
    )
    tensors.check_finite()
    check_copies(tensors, base, contents.trained)
    modules = _weights(tensors, contents, dtype)
    side = SideReader(tensors, config, base, contents.trained, dtype).read(modules)
    files = {file.name: file.read_bytes() for file in template_files(folder)}
    digests = checked or _digests(tensors, config, contents, files)
    return LoRAAdapter(
        name=name,
        version=version_of(name, digests.version),
        digest=digests.version,
        weights_digest=digests.weights,
        source=source,
        folder=folder,
        rank=contents.rank,
        num_bytes=modules.num_bytes + side.num_bytes,
        modules=modules,
        side=side,
        prompting=read_prompting(files),
    )


def _weights(tensors: AdapterTensors, contents: Contents, dtype: torch.dtype) -> LowRank:
    """Scaling goes into B before the cast; in float32 that differs from PEFT's order by an ulp."""
    stacks = []
    for pairs in contents.batches:
        pause()
        scaling = pairs[0].scaling
        modules = [pair.module for pair in pairs]
        a, _ = tensors.cast_all([pair.a for pair in pairs], dtype)
        b, factor = tensors.cast_all([pair.b for pair in pairs], dtype, scaling)
        stacks.append(LowRankStack(modules, a, b, factor, scaling))
    return LowRank(stacks, [pair.module for pair in contents.pairs])


def _digests(
    tensors: AdapterTensors,
    config: AdapterConfig,
    contents: Contents,
    files: Mapping[str, bytes],
) -> Digests:
    weights = _weights_digest(tensors, config, contents)
    return Digests(_version_digest(weights, files), weights)


def _weights_digest(tensors: AdapterTensors, config: AdapterConfig, contents: Contents) -> str:
    """SHA-256 over what each module computes: its name, scaling, and tensors as in the file."""
    sha = hashlib.sha256()
    for pair in sorted(contents.pairs, key=lambda pair: pair.module):
        pause()
        sha.update(pair.facts)
        tensors.hash_into(sha, pair.a, pair.b)
    low_rank = [key for pair in contents.pairs for key in (pair.a, pair.b)]
    for key in tensors.others(low_rank):
        pause()
        sha.update(tensors.facts(key, config.scaling(key.module)))
        tensors.hash_into(sha, key)
    if config.token_indices:
        sha.update(json.dumps(list(config.token_indices.items())).encode())
    return sha.hexdigest()


def _version_digest(weights_digest: str, files: Mapping[str, bytes]) -> str:
    sha = hashlib.sha256(weights_digest.encode())
    for name, content in files.items():
        sha.update(json.dumps([name, hashlib.sha256(content).hexdigest()]).encode())
    return sha.hexdigest()
