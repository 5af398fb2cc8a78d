"""How PEFT matches the regular expressions in the fields of an adapter's configuration."""

from enum import Enum
from typing import NamedTuple


class PatternForm(Enum):
    """Place of a pattern in a name. The values are the texts that PEFT writes around a pattern."""

    NAME = "", ""
    """The whole name (`target_modules`, `exclude_modules`)."""
    END = r"(.*\.)?(", ")$"
    """The name, or the part after any of its dots (`rank_pattern`, `alpha_pattern`)."""
    PART = r"(^|.*\.)", r"($|\..*)"
    """A part between dots (`modules_to_save`). PEFT sets no brackets around the pattern."""
    LAYER = r"(?:^|.*?\.)", r"\.(?P<idx>\d+)\."
    """The part before a layer's number (`layers_pattern`)."""

    def regex(self, pattern: str) -> str:
        """Return the regular expression that PEFT matches from the start of a name."""
        start, end = self.value
        return f"{start}{pattern}{end}"


class Match(NamedTuple):
    """The first pattern of a field that matches a name."""

    pattern: int
    """Index of the pattern."""
    layer: str | None = None
    """Number of the layer. Only for PatternForm.LAYER."""
