"""Prompt styles: the chat templates, end tokens and sampling defaults of an adapter. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from shared.protocol.tools import ToolForm
from shared.reasoning_form import ReasoningForm


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptStyle:
    """Prompt settings in an adapter's folder. Default values don't override the base model's."""

    templates: Mapping[str, str] = field(default_factory=dict)
    """Chat templates by name (`default`, `tool_use`). If empty, the base model's are used."""
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    """Special tokens by their variable names in these templates, such as `bos_token`."""
    tool_form: ToolForm | None = None
    """Form of tool calls that these templates show to the model; None if they show no tools."""
    reasoning: ReasoningForm | None = None
    """Form of the reasoning of answers; None if answers have no reasoning.

    It is detected in the adapter's chat templates. If the adapter has none, it is detected in the
    base model's chat templates."""
    eos_ids: frozenset[int] = frozenset()
    """Tokens that end an answer, in addition to the base model's end tokens."""
    sampling: Mapping[str, float] = field(default_factory=dict)
    """Default values, by name, of the sampling fields that a request leaves out."""

    def template(self, *, has_tools: bool) -> str | None:
        """Return the chat template for a request; None selects the base model's own."""
        default = self.templates.get("default")
        return self.templates.get("tool_use", default) if has_tools else default


BASE_STYLE = PromptStyle()
"""Style of the base model. It overrides nothing."""
