"""Messages of a chat request, by role."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from api.schema.tools import ToolCall
from shared.errors import ErrorCode

_TEXT_PART = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    "required": ["type", "text"],
    "additionalProperties": False,
}
_UNSUPPORTED_PARTS = ("image_url", "input_audio", "file", "refusal")


def as_text(content: Any) -> Any:
    """Return a message's content as one string. Text parts are joined by line breaks.

    Raises:
        ValueError: the content is neither a string nor a list of text parts.
        PydanticCustomError: a part has a type of OpenAI's API that this server doesn't support.
    """
    if isinstance(content, list) and content:
        return "\n".join(_part_text(part) for part in content)
    if not isinstance(content, str):
        raise ValueError('must be a string or a list of {"type": "text", "text": ...} parts')
    return content


def _part_text(part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in _UNSUPPORTED_PARTS:
        raise PydanticCustomError(
            ErrorCode.UNSUPPORTED_PARAMETER,
            'has a part of type "{kind}", which isn\'t supported; send text',
            {"kind": kind},
        )
    if kind != "text":
        raise ValueError('can only have parts of type "text"')
    if part.keys() != {"type", "text"} or not isinstance(part["text"], str):
        raise ValueError('has a part that isn\'t {"type": "text", "text": "..."}')
    return part["text"]


Content = Annotated[
    str,
    BeforeValidator(as_text),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "array", "items": _TEXT_PART, "minItems": 1}]}
    ),
]


class _MessageBase(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str | None = Field(
        None, description="Name of the author. Some chat templates show it to the model."
    )


class SystemMessage(_MessageBase):
    """Instructions for the model. The roles developer and system are equivalent."""

    role: Literal["system", "developer"]
    content: Content


class UserMessage(_MessageBase):
    """Message from the user."""

    role: Literal["user"]
    content: Content


class AssistantMessage(_MessageBase):
    """Earlier message from the model, with content, tool calls or both."""

    role: Literal["assistant"]
    content: Content | None = None
    tool_calls: list[ToolCall] | None = None


class ToolMessage(_MessageBase):
    """Result of a tool call."""

    role: Literal["tool"]
    content: Content
    tool_call_id: str = Field(description="Id of the call that this message answers.")


Message = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")
]
"""One message of the conversation."""
