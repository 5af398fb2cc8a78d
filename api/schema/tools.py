"""Tools in requests and answers."""

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

from api.http.json_depth import MAX_DEPTH, is_deep

MAX_TOOLS = 128
NAME_PATTERN = r"^[a-zA-Z0-9_-]{1,64}$"
_MODES = ("none", "auto", "required")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def of_an_object(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema of objects, as arguments have names."""
    if schema.get("type", "object") != "object":
        raise ValueError('must have the type "object": arguments have names')
    if is_deep(schema):
        raise ValueError(f"can't be nested in more than {MAX_DEPTH} levels")
    return schema


class FunctionDefinition(_Strict):
    """A function of the client's."""

    name: str = Field(pattern=NAME_PATTERN)
    description: str | None = None
    parameters: Annotated[dict[str, Any], AfterValidator(of_an_object)] | None = Field(
        None, description="JSON Schema of the arguments, an object; by default there are none"
    )
    strict: bool | None = Field(
        None, description="arguments follow the schema, which holds when a call is required"
    )


class Tool(_Strict):
    """Something that the model may call."""

    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(_Strict):
    """Names one of the tools."""

    name: str


class NamedTool(_Strict):
    """The one tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


def as_tool_choice(value: Any) -> Any:
    """One of the modes, or an object that names a tool."""
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
"""Whether tools are called: by default auto, without tools none."""


class CalledFunction(_Strict):
    """Which function, with what."""

    name: str
    arguments: str = Field(description="a JSON object, as text that the model wrote: check it")


class ToolCall(_Strict):
    """A call of a tool by the model."""

    id: str
    type: Literal["function"]
    function: CalledFunction
