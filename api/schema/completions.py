"""/v1/completions: what is accepted and returned."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from api.schema.generation import GenerationRequest
from api.schema.usage import UsageBody
from shared.errors import ErrorCode

MAX_TOKEN_ID = 2**31 - 1
_PROMPTS = [{"type": "string"}, {"type": "array", "items": {"type": "integer"}}]


def as_prompt(value: Any) -> Any:
    """A prompt: text, or the token ids themselves; either may stand in a list of its own."""
    if value and isinstance(value, list) and all(isinstance(item, str | list) for item in value):
        if len(value) > 1:
            raise PydanticCustomError(
                ErrorCode.UNSUPPORTED_PARAMETER, "can only be one prompt; send a request for each"
            )
        value = value[0]
    if value in ("", []):
        raise ValueError("can't be empty")
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not all(map(_is_token_id, value)):
        raise ValueError("must be a string or a list of token ids")
    return value


def _is_token_id(value: Any) -> bool:
    # bool is an int in Python, but true isn't a token id.
    return type(value) is int and 0 <= value <= MAX_TOKEN_ID


class CompletionRequest(GenerationRequest):
    """A text to go on with."""

    prompt: Annotated[
        str | list[int],
        BeforeValidator(as_prompt),
        WithJsonSchema(
            {"anyOf": [*_PROMPTS, {"type": "array", "items": {"anyOf": _PROMPTS}, "maxItems": 1}]}
        ),
    ]


class CompletionChoice(BaseModel):
    """One continuation."""

    index: int
    text: str
    logprobs: None = None
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
