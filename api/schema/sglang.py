"""Requests and responses of SGLang's routes for trainers: adapters, pauses and the server."""

from typing import Annotated, Any, Literal

from pydantic import Field

from api.schema.adapters import Name, Path
from api.schema.base import Body, RequestModel, StrictBody

MAX_COPIES = 64
"""Maximum number of copies of an adapter in one request."""
_INTERNAL = "SGLang's internal id. It must be null."


class SglangBody(StrictBody):
    """Body of a request that SGLang also sends between its processes."""

    rid: None = Field(None, description=_INTERNAL)
    http_worker_ipc: None = Field(None, description=_INTERNAL)
    lora_id: None = Field(None, description=_INTERNAL)


class SglangLoadRequest(SglangBody):
    """Body of POST /load_lora_adapter, with SGLang's field names."""

    lora_name: Name
    lora_path: Path
    pinned: bool = False
    """Whether a worker always keeps the adapter in memory."""
    upsert: bool = False
    """Whether to replace an adapter that already has this name."""


class LoadTensorsRequest(SglangBody):
    """Body of POST /load_lora_adapter_from_tensors, with SGLang's field names."""

    lora_name: Name
    config_dict: dict[str, Any] = Field(description="Contents of adapter_config.json.")
    serialized_named_tensors: Annotated[list[str], Field(max_length=MAX_COPIES, fail_fast=True)] = (
        Field(default_factory=list)
    )
    """The bytes of a safetensors file in base64. SGLang's clients send an equal copy for each
    rank."""
    serialized_tensors: str | None = None
    """The bytes of a safetensors file in base64, as one text. Earlier versions of SGLang use this
    field."""
    load_format: Literal["safetensors"] | None = None
    """SGLang's other formats are Python pickles, which aren't accepted."""
    pinned: bool = False
    """Whether a worker always keeps the adapter in memory."""
    upsert: bool = False
    """Whether to replace an adapter that already has this name."""
    added_tokens_config: None = Field(None, description="Not supported.")
    expected_checksums: None = Field(None, description="Not supported.")

    @property
    def tensors(self) -> list[str]:
        """All copies of the tensors in base64."""
        return [*self.serialized_named_tensors, *filter(None, [self.serialized_tensors])]


class SglangUnloadRequest(SglangBody):
    """Body of POST /unload_lora_adapter, with SGLang's field names."""

    lora_name: str


class LoraUpdate(Body):
    """Response to a change of an adapter, in SGLang's format."""

    success: Literal[True] = True
    error_message: None = None
    loaded_adapters: dict[str, str] = Field(description="Source of the adapter, by its name.")
    weight_version: str | None = None
    """Version of the loaded adapter: `name@digest`. Answers of this version report the same
    weight_version."""


class PauseRequest(RequestModel):
    """Body of POST /pause_generation, with SGLang's field names."""

    mode: Literal["abort", "retract", "in_place"] = "abort"
    """abort: unfinished requests of the key's tenant end with the tokens that they have by then.
    retract, in_place: running requests go on."""


class ContinueRequest(RequestModel):
    """Body of POST /continue_generation, with SGLang's field names."""

    torch_empty_cache: bool | None = None
    """Has no effect."""


class Confirmed(Body):
    """Confirms a pause, or its end."""

    status: Literal["ok"] = "ok"
    message: str
