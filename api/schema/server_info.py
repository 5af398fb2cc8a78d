"""Responses of the routes that describe the server in vLLM's format."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

ANY_RANK = 2**31 - 1
"""Reported as the limit on an adapter's rank. Only `--adapter-memory-mb` limits the rank."""


class ServerVersion(BaseModel):
    """Version of Lorikeet."""

    version: str


class ServerLoad(BaseModel):
    """Load of one front end."""

    server_load: int = Field(description="Number of jobs whose clients wait for their answers.")


class WorldSize(BaseModel):
    """Size of the pool."""

    world_size: int = Field(description="Number of live workers.")


class ModelConfig(BaseModel):
    """The base model."""

    model: str
    dtype: str | None = Field(
        description="Type of the weights, such as torch.bfloat16; null if no worker is alive."
    )
    max_model_len: int = Field(description="Context length in tokens: prompt and answer together.")
    logprobs_mode: Literal["raw_logprobs"] = Field(
        default="raw_logprobs",
        description="Logprobs are the model's own, before temperature, bias and penalties.",
    )


class LoraConfig(BaseModel):
    """Limits of adapters."""

    max_lora_rank: int = Field(
        default=ANY_RANK,
        description="Largest rank. A number that no adapter reaches: there is no limit.",
    )
    max_loras: int = Field(
        description="Number of adapters that the workers' batches can contain together: one for "
        "each sequence."
    )


class ParallelConfig(BaseModel):
    """How the server appears to clients that manage adapters."""

    data_parallel_size: Literal[1] = Field(
        default=1,
        description="Number of replicas that an adapter must be loaded into separately. It is 1, "
        "because a load reaches all workers; /get_world_size has the number of workers.",
    )


class VllmConfig(BaseModel):
    """The part of vLLM's configuration that clients read."""

    model_config = ConfigDict(serialize_by_alias=True)

    # pydantic reserves the name `model_config`.
    model_config_: ModelConfig = Field(serialization_alias="model_config")
    lora_config: LoraConfig
    parallel_config: ParallelConfig = Field(default_factory=ParallelConfig)
    weight_transfer_config: None = Field(
        default=None, description="Always null: weights are transferred as adapters only."
    )


class ServerInfo(BaseModel):
    """Configuration of the pool, in vLLM's format."""

    vllm_config: VllmConfig
