"""Finds the experts' weights that an adapter changes, and the tensors that PEFT saves for them.

PEFT wraps the module of experts once for each targeted parameter, in the order of the parameters in
the module. So the tensors of the last parameter are named after the module, and those of each
parameter before it have another `base_layer` in their names.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from shared.errors import AdapterRejected
from worker.lora.base.experts import ROUTER, MixtureWeight
from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.config import AdapterConfig
from worker.lora.checkpoint.tensor_names import TensorKey, TensorRole
from worker.lora.patterns.linear_patterns import ends
from worker.lora.patterns.name_patterns import shorten

_WRAPPED = ".base_layer"
_FIRST_IN_ORDER = (0, 20)
"""First release of PEFT in which A reads the input of experts, however they are stored."""
_FIRST_SWAPPED = (0, 19)
"""First release that swaps the matrices of experts that are stored as `[in, out]`.

Earlier releases swap those of experts that are stored as `[out, in]`."""


@dataclass(frozen=True, slots=True)
class ExpertPair:
    """The tensors and the scaling of a targeted weight of experts."""

    weight: MixtureWeight
    module: str
    """Name of the module in the tensors' names."""
    rank: int
    """Rank of each expert."""
    scaling: float

    @property
    def a(self) -> TensorKey:
        """Key of the matrices A of all experts, `[experts * r, in]`, expert by expert."""
        return TensorKey(self.module, TensorRole.LORA_A)

    @property
    def b(self) -> TensorKey:
        """Key of the matrices B of all experts, `[out, r * experts]`, row by row of A."""
        return TensorKey(self.module, TensorRole.LORA_B)

    @property
    def shapes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Shapes of both tensors."""
        rows = self.weight.num_experts * self.rank
        return (rows, self.weight.in_features), (self.weight.out_features, rows)


def expert_pairs(config: AdapterConfig, base: BaseModules) -> list[ExpertPair]:
    """Return the pairs of the experts' weights that `target_parameters` names.

    Raises:
        AdapterRejected: it names another parameter, or is combined with a setting that PEFT doesn't
            implement for parameters.
    """
    targets = config.target_parameters
    if not targets:
        return []
    if config.use_dora or config.lora_bias or config.fan_in_fan_out:
        raise AdapterRejected(
            "target_parameters with use_dora, lora_bias or fan_in_fan_out isn't supported: PEFT "
            "doesn't implement it"
        )
    found: dict[str, list[MixtureWeight]] = {}
    wanted, unmatched = frozenset(targets), set(targets)
    for weight in base.experts.values():
        name = config.trained_name(weight.name)
        matching = wanted & {name, *ends(name)}
        unmatched -= matching
        if matching:
            found.setdefault(weight.module, []).append(weight)
    if unmatched:
        raise AdapterRejected(
            f"target_parameters={shorten(repr(sorted(unmatched)))} isn't supported: it names no "
            f"weight of experts in this model{_advice(base)}"
        )
    for weights in found.values():
        for weight in weights:
            _check_orientation(config, weight)
    return [pair for weights in found.values() for pair in _nested(config, weights)]


def _check_orientation(config: AdapterConfig, weight: MixtureWeight) -> None:
    """Refuse a file whose matrices may be swapped, if their shapes don't show it."""
    is_square = weight.in_features == weight.out_features
    release = config.peft_version
    is_early = release and release < _FIRST_SWAPPED and weight.is_transposed
    if not is_square or weight.parameter == ROUTER or release >= _FIRST_IN_ORDER or is_early:
        return
    raise AdapterRejected(
        f"target_parameters: A and B of {weight.name} may be swapped, as releases of PEFT before "
        "0.20 save them; save the adapter again with a later one"
    )


def _nested(config: AdapterConfig, weights: Sequence[MixtureWeight]) -> Iterator[ExpertPair]:
    for depth, weight in enumerate(reversed(weights)):
        module = weight.module + _WRAPPED * depth
        yield ExpertPair(weight, module, config.rank(weight.name), config.scaling(weight.name))


def _advice(base: BaseModules) -> str:
    names = dict.fromkeys(weight.parameter for weight in base.experts.values())
    return f"; train {' and '.join(names)} of the experts, and linears" if names else ""


def expert_shapes(pairs: Sequence[ExpertPair]) -> Mapping[TensorKey, tuple[int, int]]:
    """Return the shape of each tensor of `pairs`."""
    return {
        key: shape
        for pair in pairs
        for key, shape in zip((pair.a, pair.b), pair.shapes, strict=True)
    }
