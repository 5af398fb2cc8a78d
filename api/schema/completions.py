"""/v1/completions: what is accepted and returned."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, WithJsonSchema

from api.schema.generation import GenerationRequest
from api.schema.usage import UsageBody

MAX_TOKEN_ID = 2**31 - 1


def as_prompt(value: Any) -> Any:
    """A prompt: text, or the token ids themselves."""
    if value in ("", []):
        raise ValueError("can't be empty")
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ValueError("must be a string or a list of token ids")
    if isinstance(value[0], str | list):
        raise ValueError("can only be one prompt; send a request for each")
    # bool is an int in Python, but true isn't a token id.
    if not all(type(token) is int and 0 <= token <= MAX_TOKEN_ID for token in value):
        raise ValueError("must be a string or a list of token ids")
    return value


class CompletionRequest(GenerationRequest):
    """A text to go on with."""

    prompt: Annotated[
        str | list[int],
        BeforeValidator(as_prompt),
        WithJsonSchema(
            {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "integer"}}]}
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
