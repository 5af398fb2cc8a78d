"""How PEFT matches the regular expressions in the fields of an adapter's configuration."""

from enum import Enum
from typing import NamedTuple


class PatternForm(Enum):
    """Part of a name that a pattern must match.

    The values are the texts that PEFT writes before and after a pattern.
    """

    NAME = "", ""
    """The whole name (`target_modules`, `exclude_modules`)."""
    END = r"(.*\.)?(", ")$"
    """The whole name, or the rest of the name after any dot (`rank_pattern`, `alpha_pattern`)."""
    PART = r"(^|.*\.)", r"($|\..*)"
    """One or more parts between dots (`modules_to_save`). PEFT adds no group around the pattern."""
    LAYER = r"(?:^|.*?\.)", r"\.(?P<idx>\d+)\."
    """The part before a layer's number (`layers_pattern`)."""

    def regex(self, pattern: str) -> str:
        """Return the regular expression that PEFT matches from the start of a name."""
        start, end = self.value
        return f"{start}{pattern}{end}"


class Match(NamedTuple):
    """Result of matching a name: the first pattern of a field that matches it."""

    pattern: int
    """Index of the pattern in its field."""
    layer: str | None = None
    """Layer number in the name. None unless the form is PatternForm.LAYER."""
