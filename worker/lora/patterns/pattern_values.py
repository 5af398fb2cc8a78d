"""Values by regular expressions of modules' names."""

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from worker.lora.patterns.name_patterns import NamePatterns
from worker.lora.patterns.pattern_form import PatternForm

T = TypeVar("T")


class PatternValues(Generic[T]):
    """PEFT's `rank_pattern` and `alpha_pattern`: the first pattern that matches a module counts."""

    def __init__(self, field: str, values: Mapping[str, T], *, may_be_slow: bool) -> None:
        """Check the patterns in `field`. `may_be_slow` has the same meaning as in `NamePatterns`.

        Raises:
            AdapterRejected: as for `NamePatterns`.
        """
        self._values = values
        self._patterns = NamePatterns(field, values, PatternForm.END, may_be_slow=may_be_slow)
        self._in_order = tuple(values.values())
        self._by_module: dict[str, T | None] = {}

    def resolve(self, modules: Sequence[str]) -> None:
        """Match the names of all modules at once, which is faster than one by one.

        Raises:
            AdapterRejected: as for `NamePatterns.first_matches`.
        """
        matches = self._patterns.first_matches(modules)
        for module in modules:
            match = matches.get(module)
            # PEFT also accepts a key that equals the name, even if it doesn't match as a regex.
            value = self._values.get(module) if match is None else self._in_order[match.pattern]
            self._by_module[module] = value

    def get(self, module: str, default: T) -> T:
        """Return the value for a module, or `default` if no pattern matches its name."""
        if module not in self._by_module:
            self.resolve([module])
        value = self._by_module[module]
        return default if value is None else value
