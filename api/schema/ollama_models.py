"""Requests and responses of Ollama's API: models, bodies of answers, errors."""

from typing import Annotated, Any, Literal

from pydantic import Field

from api.schema.base import IGNORED, Body, RequestModel

Capability = Literal["completion", "tools", "thinking", "embedding", "vision"]


class OllamaNamedModel(RequestModel):
    """Body of a request that only names a model."""

    model: str | None = None
    """Base model or adapter. The tag `latest` is optional."""
    name: str | None = Field(None, description="Older name of model.")

    @property
    def named(self) -> str:
        """Name of the model, or an empty string."""
        return self.model or self.name or ""


class OllamaPullRequest(OllamaNamedModel):
    """Body of POST /api/pull."""

    stream: bool | None = Field(None, description="Defaults to true.")
    insecure: Any = Field(None, description=IGNORED)


class OllamaShowRequest(OllamaNamedModel):
    """Body of POST /api/show."""

    verbose: Any = Field(None, description=IGNORED)
    system: Any = Field(None, description=IGNORED)
    template: Any = Field(None, description=IGNORED)
    options: Any = Field(None, description=IGNORED)


class OllamaDetails(Body):
    """Properties of a model."""

    parent_model: str = Field(description="Base model of an adapter.")
    format: Literal["safetensors", "gguf"]
    family: str = Field(description="Always lorikeet: front ends don't know the architecture.")
    families: list[str]
    parameter_size: str = Field(description="Unknown, and therefore empty.")
    quantization_level: str
    """Data type in which the workers compute, such as BF16. Empty while there is no worker."""
    context_length: int
    embedding_length: int | None = None


class OllamaModel(Body):
    """A model that a client may use."""

    name: str
    model: str
    modified_at: str
    size: int = Field(description="Bytes of the weights; 0 if no worker has said.")
    digest: str
    details: OllamaDetails
    capabilities: list[Capability]


class OllamaModels(Body):
    """Response of GET /api/tags."""

    models: list[OllamaModel]


class OllamaRunningModel(Body):
    """A model that a worker holds."""

    name: str
    model: str
    size: int
    digest: str
    details: OllamaDetails
    expires_at: str
    """Time at which a worker will unload the model. Workers set no such time, so the value is far
    in the future."""
    size_vram: int
    context_length: int


class OllamaRunningModels(Body):
    """Response of GET /api/ps."""

    models: list[OllamaRunningModel]


class OllamaShown(Body):
    """Response of POST /api/show."""

    modelfile: str
    parameters: str
    template: str = Field(description="Empty: front ends don't know the chat template.")
    details: OllamaDetails
    model_info: dict[str, Any]
    capabilities: list[Capability]
    modified_at: str


class OllamaVersion(Body):
    """Response of GET /api/version."""

    version: str
    """Version of Ollama whose API the server has. Clients compare it with the version that they
    need."""
    lorikeet: str = Field(description="Version of Lorikeet.")


class OllamaStatus(Body):
    """Response of POST /api/pull."""

    status: Literal["success"] = "success"


class OllamaCalledFunction(Body):
    """Function that the model calls, and the arguments for it."""

    index: int
    name: str
    arguments: dict[str, Any]


class OllamaToolCall(Body):
    """Tool call that the model generated."""

    id: str
    function: OllamaCalledFunction


class OllamaMessage(Body):
    """Message that the model generated."""

    role: Literal["assistant"] = "assistant"
    content: str
    thinking: str | None = None
    tool_calls: list[OllamaToolCall] | None = None


class _OllamaAnswer(Body):
    model: str
    created_at: str = Field(description="Time of the request.")
    done: bool
    done_reason: Literal["stop", "length", "load", "unload"] | None = None
    total_duration: int | None = Field(None, description="Nanoseconds from request to answer.")
    load_duration: int | None = None
    """Nanoseconds until a worker had the model and had read the prompt, including the time in the
    queue."""
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = Field(None, description="From then to the first token.")
    eval_count: int | None = None
    eval_duration: int | None = Field(None, description="From the first token to the last one.")
    logprobs: list[dict[str, Any]] | None = None


class OllamaChat(_OllamaAnswer):
    """Response of POST /api/chat without a stream, or one object of a stream."""

    message: OllamaMessage


class OllamaGenerated(_OllamaAnswer):
    """Response of POST /api/generate without a stream, or one object of a stream."""

    response: str
    thinking: str | None = None


class OllamaEmbeddings(Body):
    """Response of POST /api/embed."""

    model: str
    embeddings: list[list[float]]
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None


class OllamaEmbedding(Body):
    """Response of POST /api/embeddings."""

    embedding: list[float]


class OllamaError(Body):
    """Body of every response with a status of 400 or above."""

    error: str
    code: Annotated[str | None, Field(description="Code of the error.")]
    param: Annotated[str | None, Field(description="Field that caused the error.")]
