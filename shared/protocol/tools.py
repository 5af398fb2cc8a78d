"""Tools that a model may call, and the formats in which models write tool calls."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class ToolForm(StrEnum):
    """Format in which a model writes tool calls. The model's chat template defines the format."""

    HERMES = "hermes"
    """`<tool_call>{"name": ..., "arguments": {...}}</tool_call>`. An answer may contain any
    number of calls. Used by Hermes, Qwen 2.5, Qwen 3 and others."""
    LLAMA3_JSON = "llama3_json"
    """`{"name": ..., "parameters": {...}}` as the whole answer. Semicolons separate multiple
    calls. Used by Llama 3.1 and later."""


HERMES_OPEN, HERMES_CLOSE = "<tool_call>", "</tool_call>"
LLAMA3_SEPARATOR = ";"


class ToolChoice(StrEnum):
    """Whether an answer must contain tool calls."""

    AUTO = "auto"
    """The model decides whether to call tools."""
    REQUIRED = "required"
    """The answer must contain at least one call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """Tools that one request lets the model call. A request without such tools has no `ToolUse`."""

    tools: tuple[dict[str, Any], ...]
    """Tools as the client sent them: `{"type": "function", "function": {...}}`."""
    form: ToolForm
    choice: ToolChoice = ToolChoice.AUTO
    name: str | None = None
    """Name of the only tool that the model may call; None if it may call all of them."""
    is_parallel: bool = True
    """Whether one answer may contain several calls."""

    @property
    def names(self) -> frozenset[str]:
        """Names of the tools that may be called."""
        if self.name is not None:
            return frozenset((self.name,))
        return frozenset(tool["function"]["name"] for tool in self.tools)
