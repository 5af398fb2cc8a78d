"""Requests and responses of /v1/embeddings."""

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, WithJsonSchema

from api.schema.base import USER, Body, JobRequest, Off
from api.schema.completions import PROMPT, as_prompts
from api.schema.generation import MAX_TOKEN_ID
from api.schema.usage import UsageBody

MAX_INPUTS = 2048
"""Maximum number of inputs of one request, as in OpenAI's API."""


def as_inputs(value: Any) -> list[str | list[int]]:
    """Return the field `input` as a list of inputs, each a string or a list of token ids.

    Raises:
        ValueError: an input is empty or has another type, or there are too many.
    """
    inputs = as_prompts(value)
    if len(inputs) > MAX_INPUTS:
        raise ValueError(f"can have at most {MAX_INPUTS} inputs, not {len(inputs)}")
    return inputs


class EmbeddingRequest(JobRequest):
    """Body of POST /v1/embeddings: one or more texts, for which embeddings are computed."""

    input: Annotated[
        list[str | list[int]],
        PlainValidator(as_inputs),
        WithJsonSchema(
            {
                "anyOf": [
                    *PROMPT,
                    {
                        "type": "array",
                        "items": {"anyOf": PROMPT},
                        "minItems": 1,
                        "maxItems": MAX_INPUTS,
                    },
                ]
            }
        ),
    ]
    """Text or token ids, or a list of such inputs. The embeddings are in the same order."""
    encoding_format: Literal["float", "base64"] | None = None
    """base64 encodes embeddings as little-endian float32, which is faster for many inputs. Defaults
    to float."""
    dimensions: Annotated[int, Field(ge=1)] | None = None
    """If set, it must be the number of values of the model's embeddings."""
    pooling: Literal["last", "mean", "first"] | None = None
    """Hidden states that make up the embedding: the last token's, the mean of all tokens', or the
    first token's. Defaults to last."""
    normalize: bool | None = None
    """Whether embeddings are scaled to length 1. Defaults to true."""
    truncate_prompt_tokens: Annotated[int, Field(ge=-1, le=MAX_TOKEN_ID)] | None = None
    """Uses only this number of tokens at the end of each input. -1 uses as many as fit into the
    context."""
    stream: Off | None = Field(None, description="Embeddings aren't streamed.")
    user: str | None = Field(None, description=USER)


class Embedding(Body):
    """The embedding of one input."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str = Field(description="Numbers, or base64 of float32.")


class Embeddings(Body):
    """Response of POST /v1/embeddings."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    system_fingerprint: str
    data: list[Embedding]
    usage: UsageBody
