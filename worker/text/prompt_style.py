"""How one model's prompts are made and its answers drawn: the base's way, or an adapter's own."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from shared.protocol.tools import ToolForm


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """What of an adapter's folder takes the place of the base's."""

    templates: Mapping[str, str] = field(default_factory=dict)
    """Chat templates: `default`, and perhaps `tool_use`; empty means the base's."""
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    """What these templates find under names like `bos_token`."""
    tool_form: ToolForm | None = None
    """How they teach the model to call tools; None: not at all, or the base's do."""
    eos_ids: frozenset[int] = frozenset()
    """Tokens that end an answer, besides the base's."""
    sampling: Mapping[str, float] = field(default_factory=dict)
    """Values of sampling fields that a request leaves out."""

    def template(self, *, has_tools: bool) -> str | None:
        """The chat template; None is the base's."""
        default = self.templates.get("default")
        return self.templates.get("tool_use", default) if has_tools else default


OF_BASE = Style()
