"""Responses of /v1/models, and of vLLM's routes: /tokenize, and those that describe the server."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from api.schema.base import MAX_LISTED, Body, RequestModel
from api.schema.generation import TokenIds
from api.schema.tools import PlainTools
from shared.json_text import MAX_VALUES

ANY_RANK = 2**31 - 1
"""Reported as the limit on an adapter's rank. Only `--adapter-memory-mb` limits the rank."""
_MODEL = "Base model or adapter; GET /v1/models lists their names. Defaults to the base model."
_AS_IN_CHATS = "As in /v1/chat/completions."


class ModelCard(Body):
    """One model that requests can name."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["lorikeet"] = "lorikeet"
    root: str = Field(description="Source of an adapter's weights. For the base model, its own id.")
    parent: str | None = Field(description="For an adapter, the name of the base model.")
    max_model_len: int = Field(description="Context length in tokens: prompt and answer together.")
    permission: list[str] = Field(default=[], max_length=0)
    """Always empty; older clients need the field."""


class ModelList(Body):
    """All models: the base model first, then the adapters, sorted by name."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class ServerVersion(Body):
    """Version of Lorikeet."""

    version: str


class ServerLoad(Body):
    """Load of one front end."""

    server_load: int = Field(description="Number of jobs whose clients wait for their answers.")


class WorldSize(Body):
    """Size of the pool."""

    world_size: int = Field(description="Number of live workers.")


class ModelConfig(Body):
    """The base model."""

    model: str
    dtype: str | None
    """Type of the weights, such as torch.bfloat16; null if no worker is alive."""
    max_model_len: int = Field(description="Context length in tokens: prompt and answer together.")
    logprobs_mode: Literal["raw_logprobs"] = "raw_logprobs"
    """Logprobs are the model's own, before temperature, bias and penalties."""


class LoraConfig(Body):
    """Limits of adapters."""

    max_lora_rank: int = ANY_RANK
    """Largest rank. A number that no adapter reaches: there is no limit."""
    max_loras: int
    """Number of adapters that the workers' batches can contain together: one for each sequence."""


class ParallelConfig(Body):
    """How the server appears to clients that manage adapters."""

    data_parallel_size: Literal[1] = 1
    """Number of replicas that an adapter must be loaded into separately. It is 1, because a load
    reaches all workers; /get_world_size has the number of workers."""


class VllmConfig(Body):
    """The part of vLLM's configuration that clients read."""

    model_config = ConfigDict(serialize_by_alias=True)

    # pydantic reserves the name `model_config`.
    model_config_: ModelConfig = Field(serialization_alias="model_config")
    lora_config: LoraConfig
    parallel_config: ParallelConfig = Field(default_factory=ParallelConfig)
    weight_transfer_config: None = None
    """Always null: weights are transferred as adapters only."""


class ServerInfo(Body):
    """Configuration of the pool, in vLLM's format."""

    vllm_config: VllmConfig


class TokenizeRequest(RequestModel):
    """Body of POST /tokenize: a text or a chat. null selects the default value of a field."""

    model: Annotated[str, Field(min_length=1)] | None = Field(None, description=_MODEL)
    prompt: str | None = Field(None, description="A text.")
    content: str | None = None
    """A text, under llama.cpp's name; add_special then defaults to false."""
    messages: (
        Annotated[list[dict[str, Any]], Field(max_length=MAX_LISTED, fail_fast=True)] | None
    ) = Field(None, description=f"A chat. {_AS_IN_CHATS}")
    add_special_tokens: bool | None = None
    """Whether the tokenizer adds special tokens to a text. Defaults to true. A chat has the special
    tokens of its template only."""
    add_special: bool | None = None
    """add_special_tokens for content, under llama.cpp's name."""
    return_token_strs: bool | None = None
    """Whether to return the names of the tokens in the vocabulary."""
    tools: PlainTools | None = Field(None, description=_AS_IN_CHATS)
    add_generation_prompt: bool | None = Field(None, description=_AS_IN_CHATS)
    continue_final_message: bool | None = Field(None, description=_AS_IN_CHATS)
    chat_template_kwargs: dict[str, Any] | None = Field(None, description=_AS_IN_CHATS)


class Tokenized(Body):
    """Response of POST /tokenize."""

    count: int
    max_model_len: int = Field(description="Context length of the model.")
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeRequest(RequestModel):
    """Body of POST /detokenize: token ids."""

    model: Annotated[str, Field(min_length=1)] | None = Field(None, description=_MODEL)
    tokens: Annotated[TokenIds, Field(max_length=MAX_VALUES)]


class Detokenized(Body):
    """Response of POST /detokenize."""

    prompt: str = Field(description="Text of the tokens, including special tokens.")
    content: str = Field(description="The same, under llama.cpp's name.")


class TokenizerInfo(Body):
    """Response of GET /tokenizer_info: facts about the base model's tokenizer."""

    tokenizer_class: str
    vocab_size: int
    bos_token: str | None
    eos_token: str | None
    unk_token: str | None
    pad_token: str | None
    chat_template: str | dict[str, str] | None
