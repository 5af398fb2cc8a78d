"""Finds experts whose matrices are stored one by one, as PEFT saved them with transformers 4.

There, each expert had linears of its own, such as `experts.17.gate_proj`. In the served model,
`gate` and `up` of all experts are one parameter. An expert's matrices A of both are stacked, and
its matrices B form the blocks of a matrix that is zero elsewhere. PEFT 0.21 reads such files alike.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from shared.errors import AdapterRejected
from worker.lora.base.experts import DOWN, GATE_UP, ROUTER, MixtureWeight
from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.config import AdapterConfig
from worker.lora.checkpoint.tensor_names import TensorKey, TensorRole
from worker.lora.patterns.linear_patterns import ends

_PARTS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    GATE_UP: (("gate_proj", "up_proj"), ("w1", "w3")),
    DOWN: (("down_proj",), ("w2",)),
}
"""For each parameter, the names that its parts had in models of transformers 4."""
_NAME = re.compile(r"(?P<module>.+)\.\d+\.(?P<part>[a-z]+_proj|w[123])")


@dataclass(frozen=True, slots=True)
class StoredParts:
    """The linears of each expert that together form a weight of the served model."""

    weight: MixtureWeight
    parts: tuple[str, ...]
    """Names of the linears of an expert, in the order of the weight's rows."""

    def linears(self, part: str) -> list[str]:
        """Return the names of the linears of a part, expert by expert."""
        return [f"{self.weight.module}.{n}.{part}" for n in range(self.weight.num_experts)]

    @property
    def names(self) -> list[str]:
        """Names of all linears."""
        return [name for part in self.parts for name in self.linears(part)]


@dataclass(frozen=True, slots=True)
class SeparateExperts:
    """A targeted weight of experts whose matrices are stored expert by expert."""

    stored: StoredParts
    rank: int
    """Rank of each part."""
    scaling: float

    @property
    def weight(self) -> MixtureWeight:
        """The weight in the served model."""
        return self.stored.weight

    def keys(self, part: str, role: TensorRole) -> list[TensorKey]:
        """Return the keys of a part's matrices, expert by expert."""
        return [TensorKey(name, role) for name in self.stored.linears(part)]

    def shapes(self) -> Iterator[tuple[TensorKey, tuple[int, int]]]:
        """Yield the key and the shape of each tensor."""
        out_features = self.weight.out_features // len(self.stored.parts)
        for part in self.stored.parts:
            for key in self.keys(part, TensorRole.LORA_A):
                yield key, (self.rank, self.weight.in_features)
            for key in self.keys(part, TensorRole.LORA_B):
                yield key, (out_features, self.rank)


def stored_parts(modules: Sequence[str], base: BaseModules) -> list[StoredParts]:
    """Return the weights whose experts' linears are among `modules`.

    Raises:
        AdapterRejected: a weight lacks one of its parts.
    """
    found: dict[str, set[str]] = {}
    for module in modules:
        if match := _NAME.fullmatch(module):
            found.setdefault(match["module"], set()).add(match["part"])
    stored = []
    for weight in base.experts.values():
        names = found.get(weight.module, set())
        for parts in _PARTS.get(weight.parameter, ()):
            if names.isdisjoint(parts):
                continue
            if missing := sorted({*parts} - names):
                raise AdapterRejected(
                    f"experts of {weight.module} have {', '.join(sorted(names & {*parts}))}, but "
                    f"not {missing[0]}, which the served model computes together with it"
                )
            stored.append(StoredParts(weight, parts))
    return stored


def with_router_as_parameter(config: AdapterConfig, base: BaseModules) -> AdapterConfig:
    """Return `config` with routers among its `target_parameters` instead of its target modules.

    With transformers 4, a router was a linear.
    """
    names = config.targeting.names or frozenset()
    routers = [weight.module for weight in base.experts.values() if weight.parameter == ROUTER]
    named = names & {name for router in routers for name in (router, *ends(router))}
    if not named:
        return config
    return replace(
        config,
        targeting=replace(config.targeting, names=names - named),
        target_parameters=(*config.target_parameters, *(f"{name}.{ROUTER}" for name in named)),
    )


def separate_experts(config: AdapterConfig, stored: Sequence[StoredParts]) -> list[SeparateExperts]:
    """Return the experts of `stored` with their ranks, which `config` must have resolved.

    Raises:
        AdapterRejected: the parts have different ranks or scaling, or use a setting whose effect
            depends on the release of PEFT.
    """
    experts = []
    for one in stored:
        if config.use_rslora or config.use_dora or config.lora_bias:
            raise AdapterRejected(
                "use_rslora, use_dora or lora_bias isn't supported on experts that are stored one "
                "by one: PEFT 0.21 computes them otherwise than the release that trained them"
            )
        if not one.weight.is_concatenated:
            raise AdapterRejected(f"{one.weight.name} can't be put together from separate experts")
        trained = [config.trained_name(name) for name in one.names]
        if not config.targeting.is_all_linear:
            others = {*trained} - config.targeting.targeted(trained)
            if others:
                raise AdapterRejected(
                    f"the file has matrices for {min(others)}, which adapter_config.json doesn't "
                    "train; check target_modules"
                )
        usual = (config.r, config.alpha / config.r)
        if {(config.rank(name), config.scaling(name)) for name in one.names} != {usual}:
            raise AdapterRejected(
                "rank_pattern and alpha_pattern aren't supported on experts that are stored one by "
                "one: PEFT 0.21 matches them against other names than the release that trained them"
            )
        experts.append(SeparateExperts(one, *usual))
    return experts
