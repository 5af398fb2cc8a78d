"""Requests of Ollama's API: answers and embeddings."""

from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from api.schema.base import IGNORED, MAX_LISTED, RequestModel
from api.schema.generation import INT64
from api.schema.ollama_fields import (
    MAX_LOGPROBS,
    Format,
    Inputs,
    KeepAlive,
    Stops,
    Think,
    Unused,
    Whole,
)
from api.schema.tools import PlainTools
from shared.protocol.images import MAX_IMAGES


class OllamaOptions(RequestModel):
    """Options of an answer. Options that aren't set have the model's defaults, not Ollama's."""

    num_predict: Annotated[Whole, Field(ge=-2)] | None = None
    """Maximum number of tokens of the answer. 0 or less: as many as fit into the context."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_k: Annotated[Whole, Field(ge=-1, lt=2**31)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Annotated[Whole, Field(ge=-INT64, lt=INT64)] | None = None
    """Requests with equal seeds sample equal tokens. By default and with -1, the seed is random."""
    stop: Stops = Field(default_factory=list, description="Strings that end the answer.")
    repeat_penalty: Annotated[float, Field(ge=0, le=100)] | None = None
    """Same as repetition_penalty of a chat completion. It applies to the whole prompt and answer.
    0 has no effect."""
    repeat_last_n: Annotated[Whole, Field(ge=-1)] | None = None
    """0 switches repeat_penalty off. Other values have no effect."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    num_ctx: Unused = None
    num_batch: Unused = None
    num_gpu: Unused = None
    num_keep: Unused = None
    num_thread: Unused = None
    main_gpu: Unused = None
    use_mmap: Unused = None
    draft_num_predict: Unused = None
    embedding_only: Unused = None
    f16_kv: Unused = None
    logits_all: Unused = None
    low_vram: Unused = None
    mirostat: Unused = None
    mirostat_eta: Unused = None
    mirostat_tau: Unused = None
    numa: Unused = None
    penalize_newline: Unused = None
    tfs_z: Unused = None
    use_mlock: Unused = None
    vocab_only: Unused = None


class OllamaRequest(RequestModel):
    """Fields that requests for chats and for texts have in common."""

    model: str = Field(min_length=1)
    """Base model or adapter. The tag `latest` is optional."""
    stream: bool | None = None
    """Whether to send the answer as one JSON object for each piece. Defaults to true."""
    format: Format = None
    """json constrains the answer to a JSON object. A JSON Schema constrains it to matching JSON."""
    options: OllamaOptions | None = None
    keep_alive: KeepAlive = None
    think: Think = None
    """Whether the model thinks before it answers, or how much. Defaults to true, if the model can
    think."""
    logprobs: bool | None = None
    """Whether to return the log-probability of each token of the text."""
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    """Number of most likely tokens to return at each position. Has no effect without logprobs."""
    truncate: bool | None = Field(None, description="Ignored: prompts are never shortened.")
    shift: bool | None = Field(None, description="Ignored: an answer ends with the context.")


_MESSAGES = {
    "anyOf": [
        {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "role": {"enum": ["system", "user", "assistant"]},
                    "content": {"type": "string"},
                    "thinking": {"type": ["string", "null"]},
                },
                "required": ["role", "content"],
            },
        },
        {"type": "null"},
    ]
}
_TOOLS = {
    "anyOf": [
        {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "type": {"const": "function"},
                    "function": {
                        "type": "object",
                        "properties": {
                            "name": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"},
                            "description": {"type": "string"},
                            "parameters": {"type": "object"},
                        },
                        "required": ["name"],
                    },
                },
                "required": ["function"],
            },
        },
        {"type": "null"},
    ]
}


class OllamaChatRequest(OllamaRequest):
    """Body of POST /api/chat. Without messages, it only asks whether the model is served."""

    messages: Annotated[
        Annotated[list[Any], Field(max_length=MAX_LISTED)] | None, WithJsonSchema(_MESSAGES)
    ] = None
    """Messages with content, images, tool_calls and thinking."""
    tools: Annotated[PlainTools | None, WithJsonSchema(_TOOLS)] = None
    """Functions that the model may call."""


class OllamaGenerateRequest(OllamaRequest):
    """Body of POST /api/generate. Without a prompt, it only asks whether the model is served."""

    prompt: str | None = None
    """Text of the user's message. With raw, the whole prompt."""
    system: str | None = Field(None, description="System message. Not allowed with raw.")
    images: Annotated[list[str], Field(max_length=MAX_IMAGES, fail_fast=True)] | None = None
    """Images in base64. Not allowed with raw."""
    raw: bool | None = Field(None, description="Whether the prompt gets no chat template.")


class OllamaEmbedRequest(RequestModel):
    """Body of POST /api/embed."""

    model: str = Field(min_length=1)
    input: Inputs = Field(default_factory=list)
    """Text, or a list of texts."""
    truncate: bool | None = None
    """Whether the start of an input that is longer than the context is left out. Defaults to
    true."""
    dimensions: Annotated[int, Field(ge=0)] | None = None
    """If sent, 0 or the number of values of the model's embeddings."""
    options: dict[str, Any] | None = Field(None, description=IGNORED)
    keep_alive: KeepAlive = None


class OllamaEmbeddingsRequest(RequestModel):
    """Body of POST /api/embeddings."""

    model: str = Field(min_length=1)
    prompt: str | None = None
    """One text."""
    options: dict[str, Any] | None = Field(None, description=IGNORED)
    keep_alive: KeepAlive = None
