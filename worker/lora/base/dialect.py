"""Dialects: the names that a kind of checkpoint gives to the modules of the served model. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

NUMBER = "#"
"""Placeholder for the layer number in a dialect's module names."""
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dialect:
    """Maps the names of a checkpoint's modules to the names of the served model's modules.

    Adapters that were trained on the checkpoint also use the checkpoint's names. A module of the
    checkpoint is one served module under another name, or several served modules whose rows are
    joined.
    """

    model_type: str
    """Type of the checkpoint's model, by which PEFT chooses default target modules."""
    modules: Mapping[str, tuple[str, ...]]
    """For each module of the checkpoint, the served modules that it consists of, in row order."""
    ignored: frozenset[str] = frozenset()
    """Names of checkpoint tensors that are skipped, because the served model computes them."""

    def served(self, stored: str) -> tuple[str, ...]:
        """Return the served modules of the checkpoint's module `stored`, in order.

        The result is empty if the checkpoint has no such module.
        """
        pattern = _NUMBER.sub(NUMBER, stored)
        return tuple(_numbered(name, stored) for name in self.modules.get(pattern, ()))

    def stored(self, served: str) -> str | None:
        """Return the checkpoint's module that contains the served module, or None."""
        pattern = _NUMBER.sub(NUMBER, served)
        stored = (name for name, parts in self.modules.items() if pattern in parts)
        return next((_numbered(name, served) for name in stored), None)


def _numbered(name: str, source: str) -> str:
    """Return `name` with the layer number of `source` in place of NUMBER."""
    numbers = _NUMBER.findall(source)
    return name.replace(NUMBER, numbers[0]) if numbers else name
