"""Tools that a model may call, and the forms in which models write such calls."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class ToolForm(StrEnum):
    """How a model writes that it calls a tool; its chat template teaches it one of these."""

    HERMES = "hermes"
    """`<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, anywhere, any number of them:
    Hermes, Qwen 2.5 and 3 and others."""
    LLAMA3_JSON = "llama3_json"
    """`{"name": ..., "parameters": {...}}` in place of an answer, several parted by semicolons:
    Llama 3.1 and later."""


HERMES_OPEN, HERMES_CLOSE = "<tool_call>", "</tool_call>"
LLAMA3_SEPARATOR = ";"


class ToolChoice(StrEnum):
    """Whether an answer must call tools."""

    AUTO = "auto"
    """The model decides."""
    REQUIRED = "required"
    """It must call at least one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """The tools of one request; there is none of it when no call is wanted."""

    tools: tuple[dict[str, Any], ...]
    """As sent: `{"type": "function", "function": {...}}`; what the chat template shows."""
    form: ToolForm
    choice: ToolChoice = ToolChoice.AUTO
    name: str | None = None
    """The only tool that may be called, if the client named one."""
    is_parallel: bool = True
    """Whether one answer may hold several calls."""

    @property
    def names(self) -> frozenset[str]:
        """What may be called."""
        if self.name is not None:
            return frozenset((self.name,))
        return frozenset(tool["function"]["name"] for tool in self.tools)
