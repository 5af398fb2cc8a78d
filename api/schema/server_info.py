"""Responses of vLLM's and SGLang's routes that describe the server."""

from typing import Literal

from pydantic import ConfigDict, Field

from api.schema.base import Body

ANY_RANK = 2**31 - 1
"""Reported maximum rank of adapters. Lorikeet has no such limit: only `--adapter-memory-mb` bounds
the rank."""


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
    """Log-probabilities are the model's own, before temperature, bias and penalties are applied."""


class LoraConfig(Body):
    """Limits of adapters."""

    max_lora_rank: int = ANY_RANK
    """Maximum rank of adapters. The number is larger than every rank, because there is no limit."""
    max_loras: int
    """Number of adapters that the batches of all workers can contain: one for each sequence."""


class ParallelConfig(Body):
    """Parallelism of the server, as reported to clients that load adapters."""

    data_parallel_size: Literal[1] = 1
    """Number of replicas into which clients must load an adapter separately. It is 1, because one
    request loads the adapter for all workers. /get_world_size has the number of workers."""


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
    """Configuration of the pool, in vLLM's field `vllm_config` and in SGLang's fields."""

    model_config = ConfigDict(protected_namespaces=())

    vllm_config: VllmConfig
    model_path: str
    served_model_name: str
    tokenizer_path: str
    version: str = Field(description="Version of Lorikeet.")
    context_length: int
    max_running_requests: int = Field(description="Number of sequences of all workers' batches.")
    tp_size: Literal[1] = 1
    """Number of GPUs of the server. It is 1 for every pool, because one load of an adapter reaches
    all workers."""
    dp_size: Literal[1] = 1
    pp_size: Literal[1] = 1
    enable_lora: Literal[True] = True
    disaggregation_mode: Literal["null"] = "null"


class ModelInfo(Body):
    """The base model, in SGLang's format."""

    model_config = ConfigDict(protected_namespaces=())

    model_path: str
    served_model_name: str
    tokenizer_path: str
    is_generation: Literal[True] = True
    preferred_sampling_params: None = None
    weight_version: str = Field(description="Version of the base model. Answers name their own.")
    has_image_understanding: bool
    has_audio_understanding: Literal[False] = False
