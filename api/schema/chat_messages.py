"""Messages of a chat request, by role."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from api.schema.base import IGNORED, MAX_LISTED, RequestModel
from api.schema.tools import ToolCall
from shared.errors import ErrorCode

_TEXT_KEYS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
    "thinking": "thinking",
}
"""For each type of text part, the field that has its text. vLLM's API reads the same fields."""
IMAGE_PART = "image_url"
_UNSUPPORTED_PARTS = (
    *("image", "input_image", "image_embeds"),
    *("audio", "audio_url", "input_audio"),
    *("video", "video_url", "file", "input_file", "document"),
)
_PART_SCHEMA = {
    "type": "object",
    "properties": {
        "type": {"enum": list(_TEXT_KEYS)},
        **{key: {"type": ["string", "null"]} for key in ("text", "refusal", "thinking")},
    },
    "required": ["type"],
}
_IMAGE_SCHEMA = {
    "type": "object",
    "properties": {
        "type": {"const": IMAGE_PART},
        IMAGE_PART: {
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "properties": {"url": {"type": "string"}, "detail": {"type": "string"}},
                    "required": ["url"],
                },
            ]
        },
    },
    "required": ["type", IMAGE_PART],
}
_CONTENT_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"anyOf": [{"type": "string"}, _PART_SCHEMA, _IMAGE_SCHEMA]}},
        {"type": "null"},
    ]
}
ROLE_PATTERN = r"^[a-zA-Z0-9_.-]{1,64}$"
_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
"""For each role that all chat templates know, the tag of the class for its messages."""


def check_part_type(kind: str) -> str:
    """Check the type of a content part, and return it unchanged.

    Raises:
        PydanticCustomError: the part isn't text.
        ValueError: no API has parts of this type.
    """
    if kind in _UNSUPPORTED_PARTS:
        raise PydanticCustomError(
            ErrorCode.UNSUPPORTED_PARAMETER,
            'parts of type "{kind}" aren\'t supported; send parts of type text or image_url',
            {"kind": kind},
        )
    if kind not in _TEXT_KEYS:
        kinds = ", ".join((*_TEXT_KEYS, IMAGE_PART))
        raise ValueError(f"must be one of {kinds}, not {kind[:60]!r}")
    return kind


class ContentPart(RequestModel):
    """Part of a message's content that is text."""

    type: Annotated[str, AfterValidator(check_part_type)]
    text: str | None = None
    refusal: str | None = None
    thinking: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if _TEXT_KEYS[self.type] not in self.model_fields_set:
            raise ValueError(f'must have the field "{_TEXT_KEYS[self.type]}"')
        return self

    @property
    def content(self) -> str | None:
        """The part's text; None if the client sent null."""
        text: str | None = getattr(self, _TEXT_KEYS[self.type])
        return text


class ImageUrl(RequestModel):
    """The source of an image."""

    url: str
    """URL of the image, or a data URL that contains it."""
    detail: Any = Field(None, description="Ignored: the model has one way to read images.")


class ImagePart(RequestModel):
    """An image in a message's content."""

    type: Literal["image_url"]
    image_url: Annotated[ImageUrl, BeforeValidator(lambda u: {"url": u} if type(u) is str else u)]

    @property
    def content(self) -> None:
        """None, because an image has no text."""


def as_parts(content: Any) -> Any:
    """Return a message's content as a list. null and empty text have no parts.

    Raises:
        ValueError: the content is neither a string, nor a list, nor null.
    """
    if isinstance(content, str | None):
        return [content] if content else []
    if not isinstance(content, list):
        raise ValueError('must be a string or a list of {"type": "text", "text": ...} parts')
    return content


def as_part(part: Any) -> str | ContentPart | ImagePart:
    """Return an item of a message's content. A string stands for a text part.

    Raises:
        ValidationError: the item is neither a string nor a valid part.
    """
    if isinstance(part, str):
        return part
    is_image = isinstance(part, dict) and part.get("type") == IMAGE_PART
    return (ImagePart if is_image else ContentPart).model_validate(part)


Content = Annotated[
    list[Annotated[str | ContentPart | ImagePart, PlainValidator(as_part)]],
    Field(max_length=MAX_LISTED, fail_fast=True),
    BeforeValidator(as_parts),
    WithJsonSchema(_CONTENT_SCHEMA),
]


class _MessageBase(RequestModel):
    role: str
    name: str | None = None
    """Name of the author. Some chat templates show it to the model."""
    content: Content

    @property
    def text(self) -> str:
        """The content's text as one string. Parts are joined by line breaks, as in vLLM."""
        texts = (part if isinstance(part, str) else part.content for part in self.content)
        return "\n".join(text for text in texts if text is not None)


class SystemMessage(_MessageBase):
    """Instructions for the model. The roles developer and system are equivalent."""

    role: Literal["system", "developer"]


class UserMessage(_MessageBase):
    """Message from the user."""

    role: Literal["user"]


class AssistantMessage(_MessageBase):
    """Earlier message from the model, with content, tool calls, both, or neither."""

    role: Literal["assistant"]
    content: Content = Field(default_factory=list)
    refusal: str | None = Field(None, description="Used as the content if there is no content.")
    annotations: Annotated[list[Any], Field(max_length=MAX_LISTED)] | None = Field(
        None, description=IGNORED
    )
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_LISTED, fail_fast=True)] | None = (
        None
    )
    reasoning_content: str | None = None
    """Reasoning before the message. Chat templates decide whether to use it."""
    reasoning: str | None = Field(None, description="Another name of reasoning_content.")

    @property
    def text(self) -> str:
        """The content as one string, or the refusal if the content is empty."""
        return super().text or self.refusal or ""


class ToolMessage(_MessageBase):
    """Result of a tool call."""

    role: Literal["tool"]
    tool_call_id: str = Field(description="Id of the call that this message answers.")


class OtherMessage(_MessageBase):
    """Message with a role of the model's chat template, for example `function`."""

    role: str = Field(pattern=ROLE_PATTERN, json_schema_extra={"not": {"enum": list(_ROLES)}})
    """Passed to the chat template. Templates reject or leave out roles that they don't know."""


def _kind(message: Any) -> str:
    """Return the tag of the class that validates a message."""
    role = message.get("role") if isinstance(message, dict) else getattr(message, "role", None)
    return _ROLES.get(role, "other") if isinstance(role, str) else "other"


Message = Annotated[
    Annotated[SystemMessage, Tag("system")]
    | Annotated[UserMessage, Tag("user")]
    | Annotated[AssistantMessage, Tag("assistant")]
    | Annotated[ToolMessage, Tag("tool")]
    | Annotated[OtherMessage, Tag("other")],
    Discriminator(_kind),
]
"""One message of the conversation."""


def check_any(messages: list[Message]) -> list[Message]:
    """Check that there is a message, and return the messages unchanged.

    Raises:
        ValueError: there is none.
    """
    if not messages:
        raise ValueError(
            'can\'t be empty; send at least one message, such as {"role": "user", "content": "hi"}'
        )
    return messages


Messages = Annotated[
    list[Message],
    Field(max_length=MAX_LISTED, fail_fast=True, json_schema_extra={"minItems": 1}),
    AfterValidator(check_any),
]
"""The conversation, oldest message first."""
