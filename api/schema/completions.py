"""Requests and responses of /v1/completions."""

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, WithJsonSchema

from api.schema.base import WEIGHT_VERSION, Body
from api.schema.generation import MAX_TOKEN_ID, GenerationRequest
from api.schema.logprobs import PROMPT_LOGPROBS, PromptLogprobs, TextLogprobs
from api.schema.usage import UsageBody

PROMPT = [
    {"type": "string", "minLength": 1},
    {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
]
"""JSON Schemas of a prompt: a text, or token ids."""


def as_prompts(value: Any) -> list[str | list[int]]:
    """Return the field `prompt` as a list of prompts, each a string or a list of token ids.

    Raises:
        ValueError: a prompt is empty or has another type.
    """
    is_list_of_prompts = (
        bool(value) and isinstance(value, list) and isinstance(value[0], str | list)
    )
    prompts = value if is_list_of_prompts else [value]
    for prompt in prompts:
        if prompt in ("", []):
            raise ValueError("can't be empty")
        is_ids = isinstance(prompt, list) and all(map(_is_token_id, prompt))
        if not isinstance(prompt, str) and not is_ids:
            raise ValueError("must be a string, a list of token ids, or a list of such prompts")
    return prompts


def _is_token_id(value: Any) -> bool:
    # bool is a subclass of int in Python, but JSON's true isn't a token id.
    return type(value) is int and 0 <= value <= MAX_TOKEN_ID


class CompletionRequest(GenerationRequest):
    """Body of POST /v1/completions: one or more texts that the model continues."""

    prompt: Annotated[
        list[str | list[int]],
        PlainValidator(as_prompts),
        WithJsonSchema(
            {"anyOf": [*PROMPT, {"type": "array", "items": {"anyOf": PROMPT}, "minItems": 1}]}
        ),
    ]
    """Text or token ids, or a list of such prompts. Choices are in the order of the prompts, n for
    each."""
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    """LMDeploy's name of max_tokens, which it overrides."""
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    """Maximum number of tokens in one answer. Defaults to 16. 0 is only allowed with echo: each
    answer is then its prompt."""
    echo: bool | None = Field(None, description="Whether each answer starts with its prompt.")
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    """Returns the log-probability of each token, and this number of most likely tokens at each
    position. With echo, also for the tokens of the prompt."""


class CompletionChoice(Body):
    """One continuation of a prompt."""

    index: int
    text: str
    logprobs: TextLogprobs | None = Field(None, description="Present if the request asks for it.")
    finish_reason: Literal["stop", "length"]
    stop_reason: str | int | None
    """Stop string, or token of stop_token_ids, that ended the answer, as in vLLM."""
    matched_stop: str | int | None
    """The same value as stop_reason, under SGLang's name."""
    token_ids: list[int] | None = Field(default=None, description="Present with return_token_ids.")
    prompt_token_ids: list[int] | None = None
    """Present with return_token_ids."""
    prompt_logprobs: PromptLogprobs | None = Field(default=None, description=PROMPT_LOGPROBS)


class Completion(Body):
    """Response of POST /v1/completions without `stream`."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    weight_version: str = Field(description=WEIGHT_VERSION)
    choices: list[CompletionChoice]
    usage: UsageBody
    service_tier: str | None = Field(None, description="Present if the request has one.")
