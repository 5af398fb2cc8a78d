"""Tools that a model may call, and the formats in which models write tool calls."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal


class ToolForm(StrEnum):
    """Format in which a model writes tool calls. The model's chat template defines the format."""

    HERMES = "hermes"
    """`<tool_call>{"name": ..., "arguments": {...}}</tool_call>`. An answer may contain any
    number of calls. Used by Hermes, Qwen 2.5, Qwen 3 and others."""
    LLAMA3_JSON = "llama3_json"
    """`{"name": ..., "parameters": {...}}` as the whole answer. Semicolons separate multiple
    calls. Used by Llama 3.1 and later."""
    MISTRAL = "mistral"
    """`[TOOL_CALLS] [{"name": ..., "arguments": {...}}, ...]`. Used by Mistral's older models."""
    MISTRAL_ARGS = "mistral_args"
    """`[TOOL_CALLS]name[ARGS]{...}` for each call. Used by Mistral's newer models."""
    PYTHONIC = "pythonic"
    """`[name(key="value", ...), ...]` as the whole answer. Used by Llama 3.2 and Llama 4."""
    QWEN3_CODER = "qwen3_coder"
    """`<tool_call><function=name><parameter=key>value</parameter></function></tool_call>`. Used
    by Qwen 3 Coder and Qwen 3.5."""
    DEEPSEEK_V3 = "deepseek_v3"
    """Calls between DeepSeek's own marks, with the arguments in a Markdown block. Used by
    DeepSeek V3 and R1."""
    DEEPSEEK_V31 = "deepseek_v31"
    """Calls between DeepSeek's own marks, with the bare arguments. Used by DeepSeek V3.1."""
    GLM45 = "glm45"
    """`<tool_call>name<arg_key>key</arg_key><arg_value>value</arg_value></tool_call>`. Used by
    GLM 4.5 and later."""
    GRANITE = "granite"
    """`<|tool_call|>[{"name": ..., "arguments": {...}}, ...]`. Used by Granite 3."""
    GENERIC = "generic"
    """Calls in the format of `HERMES`, for models whose chat template shows no tools. The worker
    describes the tools and this form in the messages, and a grammar keeps each call valid."""


ToolSetting = Literal[
    "auto",
    "hermes",
    "llama3_json",
    "mistral",
    "mistral_args",
    "pythonic",
    "qwen3_coder",
    "deepseek_v3",
    "deepseek_v31",
    "glm45",
    "granite",
    "generic",
    "none",
]
"""Values of --tool-call-parser."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSettings:
    """Settings of a worker for tool calls."""

    form: ToolSetting = "auto"
    allows_generic: bool = True
    """Whether a model whose chat template shows no tools uses the generic form."""


HERMES_OPEN, HERMES_CLOSE = "<tool_call>", "</tool_call>"
LLAMA3_SEPARATOR = ";"
MISTRAL_OPEN, MISTRAL_ID, MISTRAL_ARGS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"
GRANITE_OPEN = "<|tool_call|>"
DEEPSEEK_OPEN, DEEPSEEK_CLOSE = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"  # noqa: RUF001
DEEPSEEK_CALL, DEEPSEEK_END = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"  # noqa: RUF001
DEEPSEEK_SEPARATOR = "<｜tool▁sep｜>"  # noqa: RUF001

VISIBLE_TAGS = frozenset(
    (
        *(HERMES_OPEN, HERMES_CLOSE, MISTRAL_OPEN, MISTRAL_ID, MISTRAL_ARGS, GRANITE_OPEN),
        *(DEEPSEEK_OPEN, DEEPSEEK_CLOSE, DEEPSEEK_CALL, DEEPSEEK_END, DEEPSEEK_SEPARATOR),
        *("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
    )
)
"""Markers of tool calls. Answers show them as text even if they are special tokens."""

CALL_ENDS = {
    ToolForm.HERMES: HERMES_CLOSE,
    ToolForm.GENERIC: HERMES_CLOSE,
    ToolForm.QWEN3_CODER: HERMES_CLOSE,
    ToolForm.DEEPSEEK_V3: DEEPSEEK_END,
    ToolForm.DEEPSEEK_V31: DEEPSEEK_END,
}
"""Text that follows each call, for the forms whose calls are complete without this text. If an
answer is limited to one call, it stops at this text."""


class ToolChoice(StrEnum):
    """Whether an answer must contain tool calls."""

    AUTO = "auto"
    """The model decides whether to call tools."""
    REQUIRED = "required"
    """The answer must contain at least one call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """Tools that a request lets the model call. A request without tools has no `ToolUse`."""

    tools: tuple[dict[str, Any], ...]
    """Tools as the client sent them: `{"type": "function", "function": {...}}`."""
    form: ToolForm
    choice: ToolChoice = ToolChoice.AUTO
    name: str | None = None
    """Name of the only tool that the model may call; None if the model may call all tools."""
    is_parallel: bool = True
    """Whether one answer may contain several calls."""

    @property
    def names(self) -> frozenset[str]:
        """Names of the tools that may be called."""
        if self.name is not None:
            return frozenset((self.name,))
        return frozenset(tool["function"]["name"] for tool in self.tools)
