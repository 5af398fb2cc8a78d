"""Requests and responses of /v1/chat/completions."""

from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, Field

from api.schema.base import IGNORED, WEIGHT_VERSION, Body
from api.schema.chat_messages import Messages
from api.schema.generation import GenerationRequest
from api.schema.logprobs import PROMPT_LOGPROBS, ChatLogprobs, PromptLogprobs
from api.schema.tools import MAX_TOOLS, Tool, ToolCall, ToolChoiceField
from api.schema.usage import UsageBody

MAX_KWARGS_BYTES = 64 << 10
MAX_KWARGS_DEPTH = 16
RESERVED = frozenset(
    (
        *("messages", "conversation", "conversations", "tools", "self"),
        *("chat_template", "add_generation_prompt", "continue_final_message"),
        *("tokenize", "tokenizer_kwargs", "sanitize_control_tokens"),
        *("padding", "truncation", "max_length"),
        *("return_tensors", "return_dict", "return_assistant_tokens_mask"),
    )
)
"""Names that clients can't use for template variables: parameters of transformers, and names of
request fields."""
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


def is_deep(value: Any, max_depth: int) -> bool:
    """Return whether lists and objects in `value` are nested more than `max_depth` levels deep."""
    if not isinstance(value, dict | list):
        return False
    children = value.values() if isinstance(value, dict) else value
    return max_depth == 0 or any(is_deep(child, max_depth - 1) for child in children)


def check_kwargs(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Check variables of the chat template, and return them unchanged.

    Raises:
        ValueError: a name is reserved, or the variables are too large or nested too deeply.
    """
    if reserved := RESERVED & kwargs.keys():
        raise ValueError(f"can't set {min(reserved)!r}, which isn't a variable of the template")
    if len(orjson.dumps(kwargs)) > MAX_KWARGS_BYTES:
        raise ValueError(f"can have at most {MAX_KWARGS_BYTES} bytes as JSON")
    if is_deep(kwargs, MAX_KWARGS_DEPTH):
        raise ValueError(f"can't be nested in more than {MAX_KWARGS_DEPTH} levels")
    return kwargs


TemplateKwargs = Annotated[dict[str, Any], AfterValidator(check_kwargs)]


class ChatCompletionRequest(GenerationRequest):
    """Body of POST /v1/chat/completions: a conversation that the model continues."""

    messages: Messages
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    """Newer name of max_tokens, which it overrides. Defaults to the rest of the context length."""
    logprobs: bool | None = None
    """Whether to return the log-probability of each output token."""
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """Number of most likely tokens to return at each position. Requires logprobs."""
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    """Tools that the model may call. The model needs a chat template with tools."""
    tool_choice: ToolChoiceField = None
    """none: the model doesn't see the tools. auto: the model decides; the default if there are
    tools. required: the model must call a tool. An object that names a tool: the model must call
    that tool. An object of type allowed_tools: the model sees only these tools, with the mode auto
    or required."""
    parallel_tool_calls: bool | None = None
    """Whether one answer may contain several calls. Defaults to true, or to false for models that
    call tools in the generic form."""
    chat_template_kwargs: TemplateKwargs | None = None
    """Further variables of the chat template, for example {"enable_thinking": false}."""
    enable_thinking: bool | None = None
    """The variable enable_thinking of chat_template_kwargs, as in LMDeploy."""
    reasoning_effort: ReasoningEffort | None = None
    """Passed to the chat template as reasoning_effort. Also sets the variables enable_thinking and
    thinking: to false if the value is none, otherwise to true."""
    include_reasoning: bool | None = None
    """Whether answers include the model's reasoning. Defaults to true."""
    separate_reasoning: bool | None = None
    """Whether the reasoning is a field of its own, as in SGLang. With false, it stays in the
    content, between its markers. Defaults to true."""
    add_generation_prompt: bool | None = None
    """Whether the prompt ends with the header of the answer. Defaults to true, or to false with
    continue_final_message."""
    continue_final_message: bool | None = None
    """Whether the answer continues the last message."""
    echo: bool | None = None
    """Whether the answer begins with the text of the last message, if both have the same role."""
    store: bool | None = Field(None, description=IGNORED)
    prediction: dict[str, Any] | None = Field(None, description=IGNORED)


class AnswerMessage(Body):
    """Message that the model generated."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    """null if the answer consists only of tool calls or reasoning."""
    tool_calls: list[ToolCall] | None
    reasoning_content: str | None = None
    """Reasoning before the answer. Present if the model marks its reasoning; null if the answer has
    none."""
    reasoning: str | None = None
    """The same as reasoning_content, under vLLM's newer name."""


class ChatChoice(Body):
    """One answer to the conversation."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None = Field(None, description="Present if the request asks for it.")
    finish_reason: Literal["stop", "length", "tool_calls"]
    stop_reason: str | int | None
    """Stop string, or token of stop_token_ids, that ended the answer, as in vLLM."""
    matched_stop: str | int | None
    """The same value as stop_reason, under SGLang's name."""
    token_ids: list[int] | None = Field(None, description="Present with return_token_ids.")


class ChatCompletion(Body):
    """Response of POST /v1/chat/completions without `stream`."""

    id: str = Field(examples=["chatcmpl-3f0c..."])
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    """Digests of the base model and the adapter that answered."""
    weight_version: str = Field(description=WEIGHT_VERSION)
    choices: list[ChatChoice]
    prompt_token_ids: list[int] | None = Field(None, description="Present with return_token_ids.")
    prompt_logprobs: PromptLogprobs | None = Field(None, description=PROMPT_LOGPROBS)
    usage: UsageBody
    service_tier: str | None = Field(None, description="Present if the request has one.")
