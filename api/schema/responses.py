"""Requests and responses of /v1/responses."""

from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema

from api.schema.base import (
    IGNORED,
    OPTIONAL_TEXT_OR_LIST,
    TEXT_OR_LIST,
    USER,
    USER_AS_WELL,
    Body,
    JobRequest,
    RequestModel,
)
from api.schema.generation import ServiceTier
from api.schema.metadata import METADATA_LIMITS, Metadata
from api.schema.tools import PlainTools

MAX_INCLUDED = 100
"""Maximum number of values of `include`."""
_INPUT = (
    "Text of the user, or items: messages with text, function_call, function_call_output and "
    "reasoning."
)


class TextFormat(RequestModel):
    """Format of the output: any text, any JSON object, or JSON that satisfies a schema."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = Field(None, description="Name of the schema.")
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    """JSON Schema that the output must satisfy. Required with the type json_schema."""
    strict: bool | None = None
    """Has no effect: the server always enforces the schema."""


class TextOptions(RequestModel):
    """Options of the output text."""

    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = Field(None, description="Other values aren't supported.")


class ReasoningOptions(RequestModel):
    """Options of the reasoning."""

    effort: str | None = Field(None, description="As reasoning_effort of a chat completion.")
    summary: str | None = Field(None, description="Ignored: reasoning isn't summarised.")
    generate_summary: str | None = Field(None, description="Ignored, as summary.")
    context: str | None = None
    """Ignored: the chat template decides which reasoning it shows."""
    mode: str | None = Field(None, description=IGNORED)


class ResponseStreamOptions(RequestModel):
    """Options of a stream."""

    include_obfuscation: bool | None = None
    """Ignored: events are never obfuscated."""


class ResponsePrompt(RequestModel):
    """The part of a request that forms the prompt."""

    model: str = Field(min_length=1)
    """Base model or adapter; GET /v1/models lists their names."""
    input: Annotated[Any, WithJsonSchema(OPTIONAL_TEXT_OR_LIST)] = Field(
        None, description=f"{_INPUT} Required without previous_response_id."
    )
    instructions: str | None = Field(None, description="System message before the input.")
    previous_response_id: str | None = None
    """Id of an earlier response. The conversation continues from its input and output."""
    tools: PlainTools | None = None
    """Tools of the type function that the model may call."""
    tool_choice: Any = Field(
        None,
        description='"none", "auto", "required", {"type": "function", "name": ...}, or '
        '{"type": "allowed_tools", "mode": ..., "tools": [...]}.',
    )
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    truncation: Literal["disabled"] | None = None
    """Only disabled is allowed: input that doesn't fit into the context is refused."""

    @property
    def text_format(self) -> TextFormat:
        """Format of the output, which is any text by default."""
        given = self.text.format if self.text else None
        return given or TextFormat.model_validate({})


class ResponseRequest(ResponsePrompt, JobRequest):
    """Body of POST /v1/responses. Sampling fields of a chat completion are accepted as well."""

    input: Annotated[Any, WithJsonSchema(TEXT_OR_LIST)] = Field(description=_INPUT)
    store: bool | None = None
    """Whether the response can be retrieved and continued until it expires. Defaults to true."""
    metadata: Metadata | None = Field(
        None, description=f"The response repeats it. {METADATA_LIMITS}"
    )
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    """Maximum number of tokens of the output, including reasoning."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """Number of most likely tokens to return at each position."""
    include: Annotated[list[str], Field(max_length=MAX_INCLUDED, fail_fast=True)] | None = None
    """message.output_text.logprobs returns log-probabilities. Other values have no effect."""
    stream_options: ResponseStreamOptions | None = None
    max_tool_calls: int | None = Field(None, description="Ignored: it limits built-in tools.")
    service_tier: ServiceTier | None = None
    user: str | None = Field(None, description=USER)
    safety_identifier: str | None = Field(None, description=USER_AS_WELL)
    prompt_cache_key: str | None = Field(None, description=IGNORED)
    access_programs: dict[str, Any] | None = Field(None, description=IGNORED)


class ResponseBody(Body):
    """Response object, as in OpenAI's API."""

    id: str = Field(examples=["resp_3f0c..."])
    object: Literal["response"] = "response"
    created_at: int
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    model: str
    output: list[dict[str, Any]]
    error: dict[str, Any] | None
    incomplete_details: dict[str, Any] | None
    usage: dict[str, Any] | None
    previous_response_id: str | None
    metadata: dict[str, str] | None


class InputTokens(Body):
    """Number of tokens of a prompt."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int


class DeletedResponse(Body):
    """Outcome of a request to delete a response."""

    id: str
    object: Literal["response"] = "response"
    deleted: bool
    """false if the response was in progress. It is then being cancelled, and a second request
    deletes it."""


class InputItems(Body):
    """Input items of a response, including those of the conversation before it."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool
