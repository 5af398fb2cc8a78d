"""Reads LoRA adapters in PEFT's format and refuses adapters that can't be served exactly.

The registry identifies versions by the digests that are computed here. A change of the digests
makes versions that are already registered unreadable.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch

from shared.adapter_names import NAME_RULE, is_valid_name
from shared.errors import AdapterNotServed, AdapterRejected
from shared.protocol.adapters import Adapter
from shared.protocol.capabilities import EVERYTHING, AdapterKind, Capabilities, Needs, what_exceeds
from shared.protocol.ids import AdapterVersion
from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.adapter_files import AdapterFiles
from worker.lora.checkpoint.config import AdapterConfig
from worker.lora.checkpoint.expected_tensors import check_duplicates
from worker.lora.checkpoint.experts import ExpertPair
from worker.lora.checkpoint.low_rank import LowRank, LowRankStack
from worker.lora.checkpoint.manifest import Manifest, manifest_of
from worker.lora.checkpoint.prompting import Prompting, read_prompting
from worker.lora.checkpoint.separate_experts import SeparateExperts
from worker.lora.checkpoint.served_names import ServedNames, trained_modules_of
from worker.lora.checkpoint.side_reader import SideReader
from worker.lora.checkpoint.tensor_file import read_tensors
from worker.lora.checkpoint.tensor_names import TensorRole
from worker.lora.checkpoint.tensors import AdapterTensors
from worker.lora.side.weights import SideWeights
from worker.lora.throttle import pause

_OTHER = "use --engine native, or a higher --max-lora-rank"


class Digests(NamedTuple):
    """SHA-256 digests that identify an adapter version. Each has 64 hex digits."""

    version: str
    """Digest of the weights and of the files that shape prompts and sampling."""
    weights: str
    """Digest of the weights alone. Adapters with equal weights can share KV blocks."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoRAAdapter:
    """A checked adapter in host memory, ready to be copied to the adapter pool."""

    name: str
    version: AdapterVersion
    digest: str
    """The adapter's `Digests.version`."""
    weights_digest: str
    """The adapter's `Digests.weights`."""
    source: str
    """Folder or hub id that the adapter was loaded from."""
    folder: Path
    """Local folder of the files: the source itself, or the snapshot downloaded from the hub."""
    rank: int
    """Largest rank of any module."""
    num_bytes: int
    """Size of all weights in the pool's dtype, in bytes."""
    modules: LowRank
    """Low-rank matrices of the targeted linears."""
    kinds: frozenset[AdapterKind] = frozenset()
    """The adapter's parts besides plain LoRA."""
    side: SideWeights = field(default_factory=SideWeights)
    """The adapter's side weights: its changes to the model besides low-rank terms of linears."""
    prompting: Prompting = field(default_factory=Prompting)
    """Chat template, end tokens and sampling defaults."""
    num_without_effect: int = 0
    """Number of tensors for images, video or sound, which change no answer to text."""

    def named(self, name: str) -> "LoRAAdapter":
        """Return the same adapter under another name."""
        return replace(self, name=name, version=version_of(name, self.digest))

    def registry_entry(self, source: str) -> Adapter:
        """Return a registry entry that was created now.

        All workers must be able to read the adapter at `source`.
        """
        return Adapter(
            name=self.name,
            version=self.version,
            digest=self.digest,
            weights_digest=self.weights_digest,
            source=source,
            rank=self.rank,
            num_bytes=self.num_bytes,
            created_s=int(time.time()),
            kinds=self.kinds,
        )


def version_of(name: str, digest: str) -> AdapterVersion:
    """Return the version id of an adapter or a base model with this name and digest."""
    return AdapterVersion(f"{name}@{digest[:12]}")


def read_checkpoint(
    name: str,
    files: AdapterFiles,
    base: BaseModules,
    *,
    dtype: torch.dtype,
    checked: Digests | None = None,
    serves: Capabilities = EVERYTHING,
) -> LoRAAdapter:
    """Read and check the adapter in `files`. Its weights are cast to `dtype` on the CPU.

    `checked` holds digests from an earlier read, if the files haven't changed since. The tensors
    are then neither checked for finite values nor hashed again.

    Raises:
        AdapterRejected: the adapter can't be served exactly as PEFT would serve it. The message
            names the tensor, the field or the file.
        AdapterNotServed: the adapter needs more than `serves` allows.
    """
    if not is_valid_name(name):
        raise AdapterRejected(f"bad adapter name {name!r} ({NAME_RULE})")
    source = files.source
    try:
        return _read(name, files, base, dtype, checked, serves)
    except AdapterRejected as error:
        raise type(error)(f"adapter {name} from {source}: {error}") from error
    except OSError as error:
        raise AdapterRejected(f"adapter {name} from {source} can't be read: {error}") from error


def _read(
    name: str,
    files: AdapterFiles,
    base: BaseModules,
    dtype: torch.dtype,
    checked: Digests | None,
    serves: Capabilities,
) -> LoRAAdapter:
    trained_on = trained_modules_of(files.header, base)
    # This refuses misfits before it reads tensors.
    manifest = manifest_of(files.config, files.header, trained_on)
    config = manifest.config
    if excess := what_exceeds(Needs(kinds=manifest.kinds, rank=manifest.rank), serves):
        raise AdapterNotServed(f"it {excess}, which this worker's engine doesn't serve: {_OTHER}")
    tensors = AdapterTensors(
        read_tensors(files.weights_path, files.header),
        manifest.names,
        are_checked=checked is not None,
    )
    tensors.check_finite()
    check_duplicates(tensors, trained_on, manifest.trained)
    modules = _low_rank(tensors, manifest, dtype)
    side = SideReader(tensors, config, trained_on, manifest.trained, dtype).read(modules)
    if base.dialect is not None and trained_on is not base:
        served = ServedNames(base, base.dialect)
        modules, side = served.low_rank(modules), served.side(side)
    prompt_files = {path.name: path.read_bytes() for path in files.prompt_paths}
    digests = checked
    if digests is None:
        weights = _weights_digest(tensors, config, manifest)
        digests = Digests(_version_digest(weights, prompt_files), weights)
    return LoRAAdapter(
        name=name,
        version=version_of(name, digests.version),
        digest=digests.version,
        weights_digest=digests.weights,
        source=files.source,
        folder=files.folder,
        rank=manifest.rank,
        num_bytes=modules.num_bytes + side.num_bytes,
        modules=modules,
        kinds=manifest.kinds,
        side=side,
        prompting=read_prompting(prompt_files),
        num_without_effect=len(files.header.tensors) - len(manifest.names),
    )


def _low_rank(tensors: AdapterTensors, manifest: Manifest, dtype: torch.dtype) -> LowRank:
    """Read the low-rank matrices.

    If multiplying B by the scaling needs no rounding, the scaling is kept as the stack's factor.
    Otherwise, B is multiplied by the scaling before B is cast. In float32, results may differ from
    PEFT's by one unit in the last place, because PEFT applies the scaling after multiplying by B.
    """
    stacks = []
    for pairs in manifest.stackable_pairs:
        pause()
        scaling = pairs[0].scaling
        modules = [pair.module for pair in pairs]
        a, _ = tensors.cast_all([pair.a for pair in pairs], dtype)
        b, factor = tensors.cast_all([pair.b for pair in pairs], dtype, scaling)
        stacks.append(LowRankStack(modules, a, b, factor, scaling))
    experts = [_expert_stack(tensors, pair, dtype) for pair in manifest.experts]
    experts += [_joined_stack(tensors, each, dtype) for each in manifest.separate_experts]
    names = [pair.module for pair in manifest.pairs]
    return LowRank([*stacks, *experts], [*names, *(n for each in experts for n in each.modules)])


def _expert_stack(tensors: AdapterTensors, pair: ExpertPair, dtype: torch.dtype) -> LowRankStack:
    """Read the low-rank matrices of all experts of a layer."""
    pause()
    a = tensors.cast(pair.a, dtype)
    (b,), factor = tensors.cast_all([pair.b], dtype, pair.scaling)
    of_experts = b.view(len(b), pair.rank, pair.weight.num_experts).permute(2, 0, 1)
    stacked = a.view(pair.weight.num_experts, pair.rank, -1)
    return LowRankStack(pair.weight.linears, stacked, of_experts, factor, pair.scaling)


def _joined_stack(
    tensors: AdapterTensors, experts: SeparateExperts, dtype: torch.dtype
) -> LowRankStack:
    """Read the low-rank matrices of experts that are stored one by one."""
    pause()
    weight, rank, num_parts = experts.weight, experts.rank, len(experts.stored.parts)
    height = weight.out_features // num_parts
    b = torch.zeros(weight.num_experts, weight.out_features, num_parts * rank, dtype=dtype)
    matrices_a, factor = [], 1.0
    for number, part in enumerate(experts.stored.parts):
        a, _ = tensors.cast_all(experts.keys(part, TensorRole.LORA_A), dtype)
        matrices_a.append(a)
        keys = experts.keys(part, TensorRole.LORA_B)
        block, factor = tensors.cast_all(keys, dtype, experts.scaling)
        rows, columns = (slice(n * number, n * (number + 1)) for n in (height, rank))
        b[:, rows, columns] = block
    return LowRankStack(weight.linears, torch.cat(matrices_a, 1), b, factor, experts.scaling)


def _weights_digest(tensors: AdapterTensors, config: AdapterConfig, manifest: Manifest) -> str:
    """Hash the name, scaling and stored tensors of each module with SHA-256."""
    sha = hashlib.sha256()
    for pair in sorted(manifest.pairs, key=lambda pair: pair.module):
        pause()
        sha.update(pair.digest_prefix)
        tensors.hash_into(sha, pair.a, pair.b)
    for expert in manifest.experts:
        pause()
        for key in (expert.a, expert.b):
            sha.update(json.dumps(["experts", expert.weight.name]).encode())
            sha.update(tensors.digest_prefix(key, expert.scaling))
            tensors.hash_into(sha, key)
    low_rank = [key for pair in manifest.pairs for key in (pair.a, pair.b)]
    low_rank += [key for expert in manifest.experts for key in (expert.a, expert.b)]
    for each in manifest.separate_experts:
        pause()
        keys = [key for key, _ in each.shapes()]
        for key in keys:
            sha.update(tensors.digest_prefix(key, each.scaling))
        tensors.hash_into(sha, *keys)
        low_rank += keys
    for key in tensors.other_keys(low_rank):
        pause()
        sha.update(tensors.digest_prefix(key, config.scaling(key.module)))
        tensors.hash_into(sha, key)
    if config.token_indices:
        sha.update(json.dumps(list(config.token_indices.items())).encode())
    return sha.hexdigest()


def _version_digest(weights_digest: str, prompt_files: Mapping[str, bytes]) -> str:
    sha = hashlib.sha256(weights_digest.encode())
    for name, content in prompt_files.items():
        sha.update(json.dumps([name, hashlib.sha256(content).hexdigest()]).encode())
    return sha.hexdigest()
