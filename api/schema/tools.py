"""Tools in requests, and tool calls in messages and answers."""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
)

MAX_TOOLS = 128
MAX_DEPTH = 100
"""Maximum nesting depth of JSON from clients, such as schemas.

The limit is well below 254 levels, the maximum that orjson can write.
"""
NAME_PATTERN = r"^[a-zA-Z0-9_-]{1,64}$"
_MODES = ("none", "auto", "required")


def is_deep(value: Any, max_depth: int = MAX_DEPTH) -> bool:
    """Return whether lists and objects in `value` are nested more than `max_depth` levels deep."""
    if not isinstance(value, dict | list):
        return False
    children = value.values() if isinstance(value, dict) else value
    return max_depth == 0 or any(is_deep(child, max_depth - 1) for child in children)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def check_parameters(schema: dict[str, Any]) -> dict[str, Any]:
    """Check the JSON Schema of a function's arguments, and return the schema unchanged.

    Raises:
        ValueError: the schema doesn't describe an object, or is nested too deeply.
    """
    if schema.get("type", "object") != "object":
        raise ValueError('must have the type "object", because arguments are passed by name')
    if is_deep(schema):
        raise ValueError(f"can't be nested in more than {MAX_DEPTH} levels")
    return schema


class FunctionDefinition(_Strict):
    """Function that the client offers to the model."""

    name: str = Field(pattern=NAME_PATTERN)
    description: str | None = None
    parameters: Annotated[dict[str, Any], AfterValidator(check_parameters)] | None = Field(
        None,
        description="JSON Schema of the arguments, an object. By default the function has none.",
    )
    strict: bool | None = Field(
        None,
        description="Asks that arguments satisfy the schema. The server enforces it only if "
        "tool_choice requires a call.",
    )


class Tool(_Strict):
    """Tool that the model may call."""

    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(_Strict):
    """Name of a tool in the request."""

    name: str


class NamedTool(_Strict):
    """Value of `tool_choice` that names the tool to call."""

    type: Literal["function"]
    function: NamedFunction


def as_tool_choice(value: Any) -> Any:
    """Return the field `tool_choice` as a mode or a `NamedTool`.

    Raises:
        ValueError: the value is neither a mode nor an object that names a tool.
    """
    if value is None or value in _MODES:
        return value
    try:
        return NamedTool.model_validate(value)
    except ValidationError:
        raise ValueError(
            'must be "none", "auto", "required" or '
            '{"type": "function", "function": {"name": "..."}}'
        ) from None


ToolChoiceField = Annotated[
    Literal["none", "auto", "required"] | NamedTool | None,
    BeforeValidator(as_tool_choice),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(_MODES)},
                {
                    "type": "object",
                    "properties": {
                        "type": {"const": "function"},
                        "function": {
                            "type": "object",
                            "properties": {"name": {"type": "string"}},
                            "required": ["name"],
                            "additionalProperties": False,
                        },
                    },
                    "required": ["type", "function"],
                    "additionalProperties": False,
                },
                {"type": "null"},
            ]
        }
    ),
]
"""Whether the model may or must call tools. Defaults to auto if there are tools, else to none."""


class CalledFunction(_Strict):
    """Function that the model calls, and the arguments for it."""

    name: str
    arguments: str = Field(
        description="Arguments as JSON text that the model wrote. Clients must validate it."
    )


class ToolCall(_Strict):
    """Tool call that the model generated."""

    id: str
    type: Literal["function"]
    function: CalledFunction
