"""Tools in requests, and tool calls in messages and answers."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError

from api.schema.base import RequestModel
from shared.errors import ErrorCode

MAX_TOOLS = 128
PlainTools = Annotated[list[dict[str, Any]], Field(max_length=MAX_TOOLS, fail_fast=True)]
"""Tools as plain objects. They are validated later, when the request is translated."""
MAX_NAME_CHARS = 64
NAME_PATTERN = rf"^[a-zA-Z0-9_-]{{1,{MAX_NAME_CHARS}}}$"
_MODES = ("none", "auto", "required")


def check_parameters(schema: dict[str, Any]) -> dict[str, Any]:
    """Check the JSON Schema of a function's arguments, and return the schema unchanged.

    Raises:
        ValueError: the schema doesn't describe an object.
    """
    if schema.get("type", "object") != "object":
        raise ValueError('must have the type "object", because arguments are passed by name')
    return schema


def check_tool_type(kind: Any) -> Any:
    """Check that a tool isn't of OpenAI's type `custom`, and return the type unchanged.

    Raises:
        PydanticCustomError: the type is `custom`.
    """
    if kind == "custom":
        raise PydanticCustomError(
            ErrorCode.UNSUPPORTED_PARAMETER,
            'custom tools aren\'t supported; send a tool of type "function" with one string as its '
            "argument",
        )
    return kind


class FunctionDefinition(RequestModel):
    """Function that the client offers to the model."""

    name: str = Field(pattern=NAME_PATTERN)
    description: str | None = None
    parameters: Annotated[dict[str, Any], AfterValidator(check_parameters)] | None = None
    """JSON Schema of the arguments, which form an object. By default, there are no arguments."""
    strict: bool | None = None
    """Asks that arguments satisfy the schema. The server enforces the schemas of all tools if
    tool_choice requires a call, or if the answer is constrained, for example by response_format.
    Otherwise, it enforces no schema."""


class Tool(RequestModel):
    """Tool that the model may call."""

    type: Annotated[Literal["function"], BeforeValidator(check_tool_type)]
    function: FunctionDefinition


class NamedFunction(RequestModel):
    """Name of a tool in the request."""

    name: str


class NamedTool(RequestModel):
    """Value of `tool_choice` that names the tool to call."""

    type: Literal["function"]
    function: NamedFunction


class AllowedToolsSpec(RequestModel):
    """Some of the request's tools, and whether the model must call one of them."""

    mode: Literal["auto", "required"]
    tools: list[NamedTool] = Field(min_length=1, max_length=MAX_TOOLS, fail_fast=True)


class AllowedTools(RequestModel):
    """Value of `tool_choice` that restricts the model to some of the request's tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedToolsSpec


ToolChoiceValue = Literal["none", "auto", "required"] | NamedTool | AllowedTools | None


def as_tool_choice(value: Any) -> Any:
    """Return the field `tool_choice` as a mode, a `NamedTool` or an `AllowedTools`.

    Raises:
        ValueError: the value is neither a mode nor an object that names tools.
    """
    if value is None or value in _MODES:
        return value
    try:
        if isinstance(value, dict) and value.get("type") == "allowed_tools":
            return AllowedTools.model_validate(_with_spec(value))
        return NamedTool.model_validate(value)
    except ValidationError:
        raise ValueError(
            'must be "none", "auto", "required", {"type": "function", "function": {"name": "..."}} '
            'or {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [...]}} with '
            "tools that are named like that"
        ) from None


def _with_spec(value: dict[str, Any]) -> dict[str, Any]:
    """Return an `allowed_tools` choice whose mode and tools are in an object of their own.

    Some clients send them in the same object as the type instead.
    """
    if "allowed_tools" in value:
        return value
    spec = {name: value[name] for name in ("mode", "tools") if name in value}
    rest = {name: item for name, item in value.items() if name not in spec}
    return {**rest, "allowed_tools": spec}


def mode_of(choice: ToolChoiceValue) -> Literal["none", "auto", "required"]:
    """Return whether the model may or must call a tool. The mode of null is auto."""
    if isinstance(choice, NamedTool):
        return "required"
    if isinstance(choice, AllowedTools):
        return choice.allowed_tools.mode
    return choice or "auto"


_NAMED_TOOL_SCHEMA = {
    "type": "object",
    "properties": {
        "type": {"const": "function"},
        "function": {
            "type": "object",
            "properties": {"name": {"type": "string"}},
            "required": ["name"],
        },
    },
    "required": ["type", "function"],
}
_ALLOWED_TOOLS_SCHEMA = {
    "type": "object",
    "properties": {
        "type": {"const": "allowed_tools"},
        "allowed_tools": {
            "type": "object",
            "properties": {
                "mode": {"enum": ["auto", "required"]},
                "tools": {"type": "array", "items": _NAMED_TOOL_SCHEMA, "minItems": 1},
            },
            "required": ["mode", "tools"],
        },
    },
    "required": ["type", "allowed_tools"],
}
ToolChoiceField = Annotated[
    ToolChoiceValue,
    BeforeValidator(as_tool_choice),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(_MODES)},
                _NAMED_TOOL_SCHEMA,
                _ALLOWED_TOOLS_SCHEMA,
                {"type": "null"},
            ]
        }
    ),
]
"""Whether the model may or must call tools. Defaults to auto if there are tools, else to none."""


class CalledFunction(RequestModel):
    """Function that the model calls, and the arguments for it."""

    name: str
    arguments: str
    """Arguments as JSON text that the model wrote. Clients must validate it."""


class ToolCall(RequestModel):
    """Tool call that the model generated."""

    id: str
    type: Literal["function"]
    function: CalledFunction
