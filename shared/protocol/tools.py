"""Tools that a model may call, and the forms in which models write calls."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class ToolForm(StrEnum):
    """Form of a model's tool calls, which its chat template describes."""

    HERMES = "hermes"
    """`<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, any number of times in an answer.
    Used by Hermes, Qwen 2.5, Qwen 3 and others."""
    LLAMA3_JSON = "llama3_json"
    """`{"name": ..., "parameters": {...}}` instead of an answer, several separated by semicolons.
    Used by Llama 3.1 and later."""


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
    """Tools of one request. A request that allows no calls has none."""

    tools: tuple[dict[str, Any], ...]
    """Tools as the client sent them: `{"type": "function", "function": {...}}`."""
    form: ToolForm
    choice: ToolChoice = ToolChoice.AUTO
    name: str | None = None
    """Name of the only tool that may be called, if the client named one."""
    is_parallel: bool = True
    """Whether one answer may contain several calls."""

    @property
    def names(self) -> frozenset[str]:
        """Names of the tools that may be called."""
        if self.name is not None:
            return frozenset((self.name,))
        return frozenset(tool["function"]["name"] for tool in self.tools)
