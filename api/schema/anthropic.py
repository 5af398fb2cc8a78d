"""Requests and responses of /v1/messages, in Anthropic's format."""

from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema

from api.schema.base import (
    IGNORED,
    MAX_LISTED,
    OPTIONAL_TEXT_OR_LIST,
    Body,
    JobRequest,
    RequestModel,
)
from api.schema.generation import MAX_STOPS
from api.schema.tools import PlainTools

_TEXT_BLOCK = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    "required": ["type", "text"],
}
_MESSAGES = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "properties": {
            "role": {"enum": ["user", "assistant"]},
            "content": {"anyOf": [{"type": "string"}, {"type": "array", "items": _TEXT_BLOCK}]},
        },
        "required": ["role", "content"],
    },
}
_TOOLS = {
    "anyOf": [
        {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"},
                    "description": {"type": "string"},
                    "input_schema": {"type": "object"},
                },
                "required": ["name", "input_schema"],
            },
        },
        {"type": "null"},
    ]
}


class Thinking(RequestModel):
    """Whether the model thinks before it answers."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = Field(None, description="Ignored: thinking has no own limit.")
    display: str | None = Field(None, description="Ignored: thinking is always shown in full.")
    block_binding: Any = Field(None, description=IGNORED)


class MessageToolChoice(RequestModel):
    """Whether the model may or must call tools."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = Field(None, description="Required with the type tool.")
    disable_parallel_tool_use: bool | None = None


class OutputFormat(RequestModel):
    """JSON Schema that the answer satisfies."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(RequestModel):
    """Options of the output."""

    effort: str | None = Field(None, description="As reasoning_effort of a chat completion.")
    format: OutputFormat | None = None
    task_budget: dict[str, Any] | None = Field(None, description=IGNORED)


class PromptRequest(RequestModel):
    """The part of a request that forms the prompt."""

    model: str = Field(min_length=1)
    """Base model or adapter; GET /v1/models lists their names."""
    messages: Annotated[list[Any], WithJsonSchema(_MESSAGES)] = Field(
        min_length=1, max_length=MAX_LISTED
    )
    """Messages with text, tool_use, tool_result and thinking blocks."""
    system: Annotated[Any, WithJsonSchema(OPTIONAL_TEXT_OR_LIST)] = None
    """Text, or text blocks."""
    tools: Annotated[PlainTools | None, WithJsonSchema(_TOOLS)] = None
    """Tools with a name and an input_schema that the model may call."""
    tool_choice: MessageToolChoice | None = None
    thinking: Thinking | None = Field(None, description="By default, the model doesn't think.")
    output_config: OutputConfig | None = None
    cache_control: dict[str, Any] | None = Field(None, description=IGNORED)


class MessageRequest(PromptRequest, JobRequest):
    """Body of POST /v1/messages. Sampling fields of a chat completion are accepted as well."""

    max_tokens: int = Field(ge=1, description="Maximum number of tokens, including thinking.")
    stop_sequences: Annotated[list[str], Field(max_length=MAX_STOPS, fail_fast=True)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    metadata: dict[str, Any] | None = None
    """`user_id` has the effect of `user`; other fields are ignored."""
    service_tier: Literal["auto", "standard_only"] | None = Field(None, description=IGNORED)


class MessageBody(Body):
    """Message that the model generated."""

    id: str = Field(examples=["msg_3f0c..."])
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[dict[str, Any]]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]
    stop_sequence: str | None
    usage: dict[str, Any]


class TokenCount(Body):
    """Number of tokens of a prompt."""

    input_tokens: int
