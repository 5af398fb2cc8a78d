"""Finds the modules that an adapter's configuration selects, by PEFT's rules.

The result is that of `peft.tuners.tuners_utils.check_target_module_exists`. Finding it takes linear
time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from worker.lora.patterns.linear_patterns import ends
from worker.lora.patterns.name_patterns import NamePatterns

Names = frozenset[str]
"""Full names of modules, or the ends of such names after a dot."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Targeting:
    """The fields of an adapter_config.json that select modules for low-rank terms."""

    names: Names | None = None
    """Targeted modules, or None if `pattern` or the base model's defaults select them."""
    pattern: NamePatterns | None = None
    """Pattern of the targeted modules."""
    is_all_linear: bool = False
    """Whether `target_modules` is "all-linear"."""
    excluded: Names | NamePatterns = frozenset()
    saved: NamePatterns
    """Patterns of the modules that are trained in full. Such modules are never targeted."""
    saved_names: Sequence[str] = ()
    """Texts of the patterns in `saved`."""
    layers: frozenset[int] | None = None
    """Numbers of the targeted layers. None means all layers."""
    layers_pattern: NamePatterns | None = None
    """Patterns of the text before the layer number in a name.

    None means that the first part of the name that is a number is the layer number."""
    ensure_weight_tying: bool = False

    def targeted(self, modules: Sequence[str]) -> set[str]:
        """Return the targeted `modules`. Raises AdapterRejected if matching is too costly."""
        found = self._matching(modules)
        left = [module for module in modules if module in found]
        left = [module for module in left if not self._is_excluded_by_name(module)]
        excluded = {*self.saved.first_matches(left)}
        if isinstance(self.excluded, NamePatterns):
            excluded |= {*self.excluded.first_matches(left)}
        return {*left} - excluded

    def _matching(self, modules: Sequence[str]) -> set[str]:
        if self.pattern is not None:
            return {*self.pattern.first_matches(modules)}
        names = self.names or frozenset()
        exact = {module for module in modules if module in names}
        by_end = [m for m in modules if m not in exact and not names.isdisjoint(ends(m))]
        if self.layers is not None:
            numbers = self._layers_of(by_end)
            by_end = [module for module in by_end if numbers.get(module) in self.layers]
        return exact | {*by_end}

    def _layers_of(self, modules: Sequence[str]) -> dict[str, int]:
        if self.layers_pattern is None:
            numbers = {module: _first_number(module) for module in modules}
        else:
            matches = self.layers_pattern.first_matches(modules)
            numbers = {module: match.layer for module, match in matches.items()}
        return {module: int(number) for module, number in numbers.items() if number is not None}

    def _is_excluded_by_name(self, module: str) -> bool:
        if isinstance(self.excluded, NamePatterns):
            return False
        return module in self.excluded or not self.excluded.isdisjoint(ends(module))


def _first_number(name: str) -> str | None:
    """Return the first part of a name that is a number. Skip the first two parts and the last."""
    return next((part for part in name.split(".")[2:-1] if part.isdecimal()), None)
