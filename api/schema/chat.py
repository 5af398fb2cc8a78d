"""Requests and responses of /v1/chat/completions."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from api.schema.generation import IGNORED, GenerationRequest
from api.schema.logprobs import ChatLogprobs
from api.schema.messages import Message
from api.schema.response_format import ResponseFormat
from api.schema.tools import MAX_TOOLS, Tool, ToolCall, ToolChoiceField
from api.schema.usage import UsageBody


class ChatCompletionRequest(GenerationRequest):
    """Body of POST /v1/chat/completions: a conversation that the model continues."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="Newer name of max_tokens. Defaults to the rest of the context length.",
    )
    logprobs: bool | None = Field(
        None, description="Whether to return the log-probability of each output token."
    )
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = Field(
        None,
        description="Number of most likely tokens to return at each position. Requires logprobs.",
    )
    response_format: ResponseFormat | None = Field(
        None,
        description="Constrains answers to JSON, optionally to a JSON Schema. Defaults to text.",
    )
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = Field(
        None,
        description="Tools that the model may call. The model needs a chat template with tools.",
    )
    tool_choice: ToolChoiceField = Field(
        None,
        description="none: the model doesn't see the tools. auto: the model decides; the default "
        "if there are tools. required: the model must call a tool. An object that names a tool: "
        "the model must call that tool.",
    )
    parallel_tool_calls: bool | None = Field(
        None, description="Whether one answer may contain several calls. Defaults to true."
    )
    store: bool | None = Field(None, description=IGNORED)
    prediction: dict[str, Any] | None = Field(None, description=IGNORED)


class AnswerMessage(BaseModel):
    """Message that the model generated."""

    role: Literal["assistant"] = "assistant"
    content: str | None = Field(description="null if the answer consists of tool calls only.")
    tool_calls: list[ToolCall] | None


class ChatChoice(BaseModel):
    """One answer to the conversation."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None = Field(None, description="Present if the request asks for it.")
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatCompletion(BaseModel):
    """Response of POST /v1/chat/completions without `stream`."""

    id: str = Field(examples=["chatcmpl-3f0c..."])
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str = Field(
        description="Digests of the base model and the adapter that answered."
    )
    choices: list[ChatChoice]
    usage: UsageBody
    service_tier: str | None = Field(None, description="Present if the request has one.")
