"""What an adapter holds, by its configuration and the header of its file alone.

Fine-tunes of one recipe hold the same, so it is worked out once for all of them: it takes half of
the time of reading such an adapter.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from shared.errors import AdapterRejected
from worker.lora.base.modules import BaseModules, place_in_layer
from worker.lora.checkpoint.config import AdapterConfig
from worker.lora.checkpoint.expected_tensors import expected_tensors, match_tensors
from worker.lora.checkpoint.target_modules import Trained, trained_modules
from worker.lora.checkpoint.tensor_file import Header, distance
from worker.lora.checkpoint.tensor_names import Part, TensorKey
from worker.lora.checkpoint.text_cache import MAX_BYTES, MAX_KEPT
from worker.lora.throttle import AT_ONCE


@dataclass(frozen=True, slots=True)
class LowRankPair:
    """A targeted linear's pair of matrices."""

    module: str
    scaling: float
    facts: bytes
    """What a digest covers of it besides the matrices."""

    @property
    def a(self) -> TensorKey:
        """A, `[r, in]`."""
        return TensorKey(self.module, Part.LORA_A)

    @property
    def b(self) -> TensorKey:
        """B, `[out, r]`."""
        return TensorKey(self.module, Part.LORA_B)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contents:
    """An adapter's tensors and modules, all of which are known and fit the base."""

    trained: Trained
    names: Mapping[TensorKey, str]
    """Of the tensors in the file."""
    pairs: tuple[LowRankPair, ...]
    """Of the targeted linears, in the model's order."""
    batches: tuple[tuple[LowRankPair, ...], ...]
    """The same; together those that are alike but for their numbers, and equally far apart in the
    file."""
    rank: int
    """The largest."""


def contents_of(config: AdapterConfig, header: Header, base: BaseModules) -> Contents:
    """What an adapter of `config` and `header` holds.

    Raises:
        AdapterRejected: it doesn't fit the base, or isn't served; the message names the tensor or
            the field.
    """
    is_kept = len(header.text) <= MAX_BYTES
    return (_contents if is_kept else _contents.__wrapped__)(config, header, base)


@lru_cache(maxsize=MAX_KEPT)
def _contents(config: AdapterConfig, header: Header, base: BaseModules) -> Contents:
    trained = trained_modules(config, base)
    linears = [module for module in trained.targets if module in base.linears]
    _check_layout(config, base, linears)
    names = match_tensors(header.tensors, expected_tensors(config, base, trained))
    pairs = [_pair(module, config, names, header) for module in linears]
    return Contents(
        trained=trained,
        names=names,
        pairs=tuple(pairs),
        batches=tuple(_batches(pairs, names, header)),
        rank=max(config.rank(module) for module in trained.targets),
    )


def _check_layout(config: AdapterConfig, base: BaseModules, linears: list[str]) -> None:
    """PEFT sets fan_in_fan_out by what it meets, so another value is from another model."""
    if linears and config.fan_in_fan_out not in {module in base.conv1d for module in linears}:
        raise AdapterRejected(
            f"fan_in_fan_out={config.fan_in_fan_out} doesn't fit the base model's {linears[0]}"
        )


def _pair(
    module: str, config: AdapterConfig, names: Mapping[TensorKey, str], header: Header
) -> LowRankPair:
    scaling = config.scaling(module)
    keys = [TensorKey(module, part) for part in (Part.LORA_A, Part.LORA_B)]
    kinds = [header.tensors[names[key]].kind for key in keys]
    return LowRankPair(module, scaling, json.dumps([module, scaling.hex(), *kinds]).encode())


def _batches(
    pairs: Sequence[LowRankPair], names: Mapping[TensorKey, str], header: Header
) -> Iterator[tuple[LowRankPair, ...]]:
    alike: dict[tuple[str, str, str, float], list[LowRankPair]] = {}
    for pair in pairs:
        a, b = (header.tensors[names[key]] for key in (pair.a, pair.b))
        kind = (place_in_layer(pair.module), a.kind, b.kind, pair.scaling)
        alike.setdefault(kind, []).append(pair)
    for some in alike.values():
        run: list[LowRankPair] = []
        for pair in some:
            if run and not _are_one([*run, pair], names, header):
                yield tuple(run)
                run = []
            run.append(pair)
        yield tuple(run)


def _are_one(pairs: Sequence[LowRankPair], names: Mapping[TensorKey, str], header: Header) -> bool:
    """Whether one operation may go over all A of alike pairs, and one over all B."""
    matrices = ([pair.a for pair in pairs], [pair.b for pair in pairs])
    infos = [[header.tensors[names[key]] for key in keys] for keys in matrices]
    return all(
        distance(some) is not None and len(some) * prod(some[0].shape) <= AT_ONCE for some in infos
    )
