"""/v1/chat/completions: what is accepted and returned."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from api.schema.generation import GenerationRequest
from api.schema.usage import UsageBody

_TEXT_PART = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    "required": ["type", "text"],
}


def as_text(content: Any) -> Any:
    """A message's content as one string; text parts are joined by line breaks."""
    if isinstance(content, list) and content:
        return "\n".join(_part_text(part) for part in content)
    if not isinstance(content, str):
        raise ValueError('must be a string or a list of {"type": "text", "text": ...} parts')
    return content


def _part_text(part: Any) -> str:
    if not isinstance(part, dict) or part.get("type") != "text":
        raise ValueError('can only have parts of type "text"')
    if part.keys() != {"type", "text"} or not isinstance(part["text"], str):
        raise ValueError('has a part that isn\'t {"type": "text", "text": "..."}')
    return part["text"]


class Message(BaseModel):
    """One turn of the conversation."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["system", "developer", "user", "assistant"] = Field(
        description="developer is another word for system"
    )
    content: Annotated[
        str,
        BeforeValidator(as_text),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": _TEXT_PART}]}),
    ]


class ChatCompletionRequest(GenerationRequest):
    """A conversation to go on with."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = Field(
        None, description="the newer name of max_tokens; by default, what the context holds"
    )


class AnswerMessage(BaseModel):
    """The model's turn."""

    role: Literal["assistant"] = "assistant"
    content: str
    tool_calls: None = None


class ChatChoice(BaseModel):
    """One answer."""

    index: int
    message: AnswerMessage
    logprobs: None = None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(BaseModel):
    """The answers to one conversation."""

    id: str = Field(examples=["chatcmpl-3f0c..."])
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str = Field(description="version of the weights that answered")
    choices: list[ChatChoice]
    usage: UsageBody
