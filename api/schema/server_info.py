"""Responses of vLLM's routes that describe the server."""

from typing import Literal

from pydantic import ConfigDict, Field

from api.schema.base import Body

ANY_RANK = 2**31 - 1
"""Reported as the limit on an adapter's rank. Only `--adapter-memory-mb` limits the rank."""


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
    """Largest rank: a number that no adapter reaches, because there is no limit."""
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
