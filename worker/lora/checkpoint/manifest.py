"""Derives an adapter's modules and tensors from its configuration and tensor header.

The result is called a manifest. Manifests are cached, because building one takes half as long as
reading an adapter. Adapters trained with the same recipe have equal manifests.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod

from shared.errors import AdapterRejected
from shared.protocol.capabilities import AdapterKind
from worker.lora.base.modules import BaseModules, place_in_layer
from worker.lora.checkpoint.config import AdapterConfig
from worker.lora.checkpoint.expected_tensors import (
    ExpectedTensor,
    expected_tensors,
    match_tensors,
)
from worker.lora.checkpoint.experts import ExpertPair, expert_pairs, expert_shapes
from worker.lora.checkpoint.json_file import MAX_CACHED_BYTES, MAX_CACHED_TEXTS
from worker.lora.checkpoint.safetensors_header import Header
from worker.lora.checkpoint.separate_experts import (
    SeparateExperts,
    separate_experts,
    stored_parts,
    with_router_as_parameter,
)
from worker.lora.checkpoint.target_modules import TrainedModules, trained_modules
from worker.lora.checkpoint.tensor_file import common_distance
from worker.lora.checkpoint.tensor_names import TensorKey, TensorRole, parse_name
from worker.lora.checkpoint.trained_names import TrainedNames, trained_names
from worker.lora.throttle import CHUNK_ELEMENTS


@dataclass(frozen=True, slots=True)
class LowRankPair:
    """Tensor keys and scaling of a targeted linear's matrices A and B."""

    module: str
    scaling: float
    digest_prefix: bytes
    """Encoded module name, scaling, dtypes and shapes. Digests hash them before the matrices."""

    @property
    def a(self) -> TensorKey:
        """Key of A, `[r, in]`."""
        return TensorKey(self.module, TensorRole.LORA_A)

    @property
    def b(self) -> TensorKey:
        """Key of B, `[out, r]`."""
        return TensorKey(self.module, TensorRole.LORA_B)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Manifest:
    """Modules and tensors of an adapter that fits the base model."""

    config: AdapterConfig
    """The adapter's configuration, with patterns that match names of the served model."""
    trained: TrainedModules
    names: Mapping[TensorKey, str]
    """Maps the key of each tensor that changes answers to text to the tensor's name in the file."""
    pairs: tuple[LowRankPair, ...]
    """One pair for each targeted linear, in the model's order."""
    stackable_pairs: tuple[tuple[LowRankPair, ...], ...]
    """`pairs` in groups. A group's matrices A can be read as one tensor, and so can its matrices B.

    The linears of a group have the same place in their layers. The matrices A have equal shapes,
    dtypes and scaling, and are evenly spaced in the file. The same holds for the matrices B.
    """
    experts: tuple[ExpertPair, ...]
    """The targeted weights of experts and routers."""
    separate_experts: tuple[SeparateExperts, ...]
    """The targeted weights of experts that are stored one by one."""
    rank: int
    """Largest rank of any module."""
    kinds: frozenset[AdapterKind]
    """The adapter's parts besides low-rank terms of linears in the model's layers."""


def manifest_of(config: AdapterConfig, header: Header, base: BaseModules) -> Manifest:
    """Return the manifest of the adapter with this `config` and `header`.

    Raises:
        AdapterRejected: the adapter doesn't fit the base model, or isn't supported. The message
            names the tensor or the field.
    """
    is_cached = len(header.text) <= MAX_CACHED_BYTES
    return (_manifest if is_cached else _manifest.__wrapped__)(config, header, base)


@lru_cache(maxsize=MAX_CACHED_TEXTS)
def _manifest(config: AdapterConfig, header: Header, base: BaseModules) -> Manifest:
    trained_as = trained_names(header.tensors, base)
    config = replace(config, trained_name=trained_as.trained)
    stored = stored_parts(_modules(header, trained_as), base)
    if stored:
        config = with_router_as_parameter(config, base)
    separate_names = [name for one in stored for name in one.names]
    config.resolve([*base.names, *base.experts, *separate_names])
    of_base = trained_as.of(base)
    trained = trained_modules(config, of_base, has_experts=bool(stored)).renamed(trained_as.served)
    experts, separate = expert_pairs(config, base), separate_experts(config, stored)
    linears = [module for module in trained.targets if module in base.linears]
    _check_fan_in_fan_out(config, base, linears)
    expected = expected_tensors(config, base, trained)
    expected |= {key: ExpectedTensor(shape) for key, shape in expert_shapes(experts).items()}
    for each in separate:
        expected |= {key: ExpectedTensor(shape) for key, shape in each.shapes()}
    names = match_tensors(header.tensors, expected, trained_as)
    pairs = [_pair(module, config, names, header) for module in linears]
    _check_experts(experts, separate, names, header)
    ranks = [config.rank(module) for module in trained.targets]
    ranks += [pair.rank for pair in experts]
    ranks += [len(one.stored.parts) * one.rank for one in separate]
    return Manifest(
        config=config,
        trained=trained,
        names=names,
        pairs=tuple(pairs),
        stackable_pairs=tuple(_stackable(pairs, names, header)),
        experts=tuple(experts),
        separate_experts=tuple(separate),
        rank=max(ranks),
        kinds=frozenset(_kinds(config, trained, names, base)),
    )


def _check_experts(
    experts: Sequence[ExpertPair],
    separate: Sequence[SeparateExperts],
    names: Mapping[TensorKey, str],
    header: Header,
) -> None:
    """Check that no weight is stored twice, and that separate experts can be joined.

    Raises:
        AdapterRejected: they can't.
    """
    weights = [pair.weight.name for pair in experts] + [one.weight.name for one in separate]
    if twice := sorted(name for name in set(weights) if weights.count(name) > 1):
        raise AdapterRejected(f"the file has matrices for {twice[0]} in two forms; remove one")
    for one in separate:
        dtypes = {header.tensors[names[key]].dtype for key, _ in one.shapes()}
        if len(dtypes) > 1:
            raise AdapterRejected(
                f"experts of {one.weight.name} have the dtypes {' and '.join(sorted(dtypes))}; "
                "save them in one"
            )


def _modules(header: Header, trained_as: TrainedNames) -> list[str]:
    """Return the modules that the file has matrices A of, by their names in the served model."""
    keys = (parse_name(name) for name in header.tensors)
    return [trained_as.served(k.module) for k in keys if k and k.role is TensorRole.LORA_A]


def _kinds(
    config: AdapterConfig,
    trained: TrainedModules,
    names: Mapping[TensorKey, str],
    base: BaseModules,
) -> Iterator[AdapterKind]:
    biases = {TensorRole.BASE_BIAS, TensorRole.BIAS, TensorRole.LORA_B_BIAS}
    if config.use_dora:
        yield AdapterKind.DORA
    if any(key.role in biases and key.module not in trained.saved for key in names):
        yield AdapterKind.BIAS
    if trained.saved:
        yield AdapterKind.MODULES_TO_SAVE
    if base.embedding is not None and base.embedding.name in trained.targets:
        yield AdapterKind.EMBEDDING
    if base.head is not None and base.head in trained.targets:
        yield AdapterKind.LM_HEAD
    if trained.tokens:
        yield AdapterKind.TOKENS


def _check_fan_in_fan_out(config: AdapterConfig, base: BaseModules, linears: list[str]) -> None:
    """Raise AdapterRejected if `fan_in_fan_out` doesn't fit the targeted linears of the base."""
    if linears and config.fan_in_fan_out not in {module in base.conv1d for module in linears}:
        raise AdapterRejected(
            f"fan_in_fan_out={config.fan_in_fan_out} doesn't fit the base model's {linears[0]}; "
            "the adapter was trained on another base model"
        )


def _pair(
    module: str, config: AdapterConfig, names: Mapping[TensorKey, str], header: Header
) -> LowRankPair:
    scaling = config.scaling(module)
    keys = [TensorKey(module, role) for role in (TensorRole.LORA_A, TensorRole.LORA_B)]
    kinds = [header.tensors[names[key]].kind for key in keys]
    return LowRankPair(module, scaling, json.dumps([module, scaling.hex(), *kinds]).encode())


def _stackable(
    pairs: Sequence[LowRankPair], names: Mapping[TensorKey, str], header: Header
) -> Iterator[tuple[LowRankPair, ...]]:
    similar: dict[tuple[str, str, str, float], list[LowRankPair]] = {}
    for pair in pairs:
        a, b = (header.tensors[names[key]] for key in (pair.a, pair.b))
        kind = (place_in_layer(pair.module), a.kind, b.kind, pair.scaling)
        similar.setdefault(kind, []).append(pair)
    for candidates in similar.values():
        group: list[LowRankPair] = []
        for pair in candidates:
            if group and not _can_stack([*group, pair], names, header):
                yield tuple(group)
                group = []
            group.append(pair)
        yield tuple(group)


def _can_stack(
    pairs: Sequence[LowRankPair], names: Mapping[TensorKey, str], header: Header
) -> bool:
    """Return whether all A matrices can be read as one tensor, and all B matrices as another."""
    matrices = ([pair.a for pair in pairs], [pair.b for pair in pairs])
    infos = [[header.tensors[names[key]] for key in keys] for keys in matrices]
    return all(
        common_distance(same) is not None and len(same) * prod(same[0].shape) <= CHUNK_ELEMENTS
        for same in infos
    )
