"""/v1/completions: what is accepted and returned."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from api.schema.generation import MAX_TOKEN_ID, GenerationRequest
from api.schema.logprobs import TextLogprobs
from api.schema.usage import UsageBody

_PROMPT = [{"type": "string"}, {"type": "array", "items": {"type": "integer"}}]


def as_prompts(value: Any) -> Any:
    """A list of prompts, each a text or the token ids themselves; one may stand alone."""
    is_several = bool(value) and isinstance(value, list) and isinstance(value[0], str | list)
    prompts = value if is_several else [value]
    for prompt in prompts:
        if prompt in ("", []):
            raise ValueError("can't be empty")
        is_ids = isinstance(prompt, list) and all(map(_is_token_id, prompt))
        if not isinstance(prompt, str) and not is_ids:
            raise ValueError("must be a string, a list of token ids, or a list of such prompts")
    return prompts


def _is_token_id(value: Any) -> bool:
    # bool is an int in Python, but true isn't a token id.
    return type(value) is int and 0 <= value <= MAX_TOKEN_ID


class CompletionRequest(GenerationRequest):
    """A text to go on with."""

    prompt: Annotated[
        list[str | list[int]],
        BeforeValidator(as_prompts),
        WithJsonSchema({"anyOf": [*_PROMPT, {"type": "array", "items": {"anyOf": _PROMPT}}]}),
    ] = Field(description="text or token ids; several are answered in order, n times each")
    echo: bool | None = Field(None, description="begin each answer with its prompt")
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = Field(
        None,
        description="tell how likely each token was to the model, and as many likeliest tokens; "
        "with echo of the prompt as well",
    )


class CompletionChoice(BaseModel):
    """One continuation."""

    index: int
    text: str
    logprobs: TextLogprobs | None = Field(None, description="if the request asks for them")
    finish_reason: Literal["stop", "length"]


class Completion(BaseModel):
    """The continuations of one text."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: UsageBody
