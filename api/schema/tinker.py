"""Requests of Tinker's sampling client."""

from typing import Annotated, Literal

from pydantic import Field

from api.schema.base import MAX_LISTED, RequestModel
from api.schema.generation import MAX_PROMPT_LOGPROBS, TokenIds

MAX_ID_CHARS = 1024
MAX_TOP = 20
"""Maximum number of most likely tokens that a request may ask for at each position."""
MAX_SAMPLES = 128
"""Maximum number of samples of one request. A completion can have the same number of answers."""
Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARS)]


class SamplerRequest(RequestModel):
    """Body of POST /api/v1/create_sampling_session."""

    session_id: Id
    sampling_session_seq_id: int
    base_model: Annotated[str, Field(min_length=1)] | None = None
    """Name of the base model or of an adapter."""
    model_path: Annotated[str, Field(min_length=1)] | None = None
    """Name of an adapter after the prefix `tinker://`."""


class TextChunk(RequestModel):
    """A part of a prompt, as token ids."""

    type: Literal["encoded_text"]
    tokens: TokenIds


class TokenPrompt(RequestModel):
    """A prompt of token ids."""

    chunks: Annotated[list[TextChunk], Field(min_length=1, max_length=MAX_LISTED, fail_fast=True)]


class SampleParams(RequestModel):
    """Parameters of sampling. `CompletionRequest` validates their values later."""

    max_tokens: int | None = None
    seed: int | None = None
    stop: str | list[str] | list[int] | None = None
    temperature: float = 1
    top_k: int = -1
    top_p: float = 1


class SampleRequest(RequestModel):
    """Body of POST /api/v1/asample."""

    sampling_session_id: Id
    seq_id: int | None = None
    """Number of the request in its session. Repetitions of a request have the same number."""
    num_samples: Annotated[int, Field(ge=1, le=MAX_SAMPLES)] = 1
    prompt: TokenPrompt
    sampling_params: SampleParams
    prompt_logprobs: bool | None = None
    topk_prompt_logprobs: Annotated[int, Field(ge=0, le=MAX_PROMPT_LOGPROBS)] = 0
    topk_sample_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP)] = 0
    prompt_logprobs_last_n: Annotated[int, Field(ge=1)] | None = None


class Future(RequestModel):
    """Body of POST /api/v1/retrieve_future."""

    request_id: Id
