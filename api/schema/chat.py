"""/v1/chat/completions: what is accepted and returned."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from api.schema.generation import NOT_USED, GenerationRequest
from api.schema.logprobs import ChatLogprobs
from api.schema.messages import Message
from api.schema.response_format import ResponseFormat
from api.schema.tools import MAX_TOOLS, Tool, ToolCall, ToolChoiceField
from api.schema.usage import UsageBody


class ChatCompletionRequest(GenerationRequest):
    """A conversation to go on with."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = Field(
        None, description="the newer name of max_tokens; by default, what the context holds"
    )
    logprobs: bool | None = Field(
        None, description="tell how likely each token of the answer was to the model"
    )
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = Field(
        None, description="tell as many of the likeliest tokens; only with logprobs"
    )
    response_format: ResponseFormat | None = Field(
        None, description="whether answers must be JSON, and under which schema; by default text"
    )
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = Field(
        None, description="what the model may call; needs a chat template that shows tools"
    )
    tool_choice: ToolChoiceField = Field(
        None,
        description="none (tools aren't shown to the model), auto (the default with tools), "
        "required, or the one that must be called",
    )
    parallel_tool_calls: bool | None = Field(
        None, description="whether one answer may hold several calls; by default it may"
    )
    store: bool | None = Field(None, description=NOT_USED)
    prediction: dict[str, Any] | None = Field(None, description=NOT_USED)


class AnswerMessage(BaseModel):
    """The model's turn."""

    role: Literal["assistant"] = "assistant"
    content: str | None = Field(description="null when the model only calls tools")
    tool_calls: list[ToolCall] | None


class ChatChoice(BaseModel):
    """One answer."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None = Field(None, description="if the request asks for them")
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatCompletion(BaseModel):
    """The answers to one conversation."""

    id: str = Field(examples=["chatcmpl-3f0c..."])
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str = Field(description="digests of the base and the adapter that answered")
    choices: list[ChatChoice]
    usage: UsageBody
