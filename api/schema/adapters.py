"""Requests and responses of /v1/adapters and of vLLM's load and unload routes."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from api.schema.errors import ErrorDetail
from shared.adapter_names import NAME_PATTERN, NAME_RULE, is_valid_name
from shared.protocol.capabilities import AdapterKind
from shared.protocol.ids import AdapterVersion
from shared.protocol.uploads import CONFIG_KEY, upload_of
from shared.store.adapters.share import CandidateMode


def _valid_name(name: str) -> str:
    if not is_valid_name(name):
        raise ValueError(f"must be a name: {NAME_RULE}")
    return name


def _valid_path(path: str) -> str:
    if "\0" in path:
        raise ValueError("must not contain a NUL character")
    if upload_of(path) is not None:
        raise ValueError("must be a folder, a hub id or a URL; POST /v1/adapters takes uploads")
    return path


Name = Annotated[
    str,
    AfterValidator(_valid_name),
    Field(description=NAME_RULE, json_schema_extra={"pattern": NAME_PATTERN}),
]
Path = Annotated[
    str,
    Field(
        min_length=1,
        max_length=4096,
        description="Folder on the worker's machine, Hugging Face repository (`org/repo` or "
        "`org/repo@revision`), or URL (`s3://`, `gs://`, `https://`) of an archive. In a bucket, "
        "it may also be the URL of a folder. One of the worker's --adapter-root values must allow "
        "it. `#sha256=HEX` after the URL of an archive is compared with the archive's digest.",
    ),
    AfterValidator(_valid_path),
]


LoraIntId = Annotated[
    int | None, Field(description="vLLM's internal number of an adapter. It has no effect.")
]


class LoadAdapterRequest(BaseModel):
    """Body of POST /v1/load_lora_adapter, with vLLM's field names."""

    model_config = ConfigDict(extra="forbid", strict=True)

    lora_name: Name
    lora_path: Path
    load_inplace: bool = Field(
        False, description="Whether to replace an adapter that already has this name."
    )
    lora_int_id: LoraIntId = None


class UploadAdapterQuery(BaseModel):
    """Query of POST /v1/adapters, whose body is a safetensors file unless `source` is given."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Name
    config: str | None = Field(
        None,
        max_length=1 << 20,
        description="Text of adapter_config.json. If it is left out, the metadata of the "
        f"safetensors file must hold it under the key `{CONFIG_KEY}`.",
    )
    source: Path | None = Field(
        None, description="Source of the adapter, in place of a body: what `lora_path` takes."
    )
    candidate: Literal["true", "false"] = Field(
        "false",
        description="Whether the adapter becomes the candidate of a loaded name. It takes no "
        "requests until PUT /v1/adapters/{name}/candidate gives it a share.",
    )


class RollBackQuery(BaseModel):
    """Query of POST /v1/adapters/{name}/rollback."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: AdapterVersion | None = Field(
        None,
        min_length=1,
        description="Kept version to return to, as `name@digest`. By default, the previous one.",
    )


class PauseQuery(BaseModel):
    """Query of POST /pause, with vLLM's parameters."""

    model_config = ConfigDict(extra="forbid")

    mode: Literal["keep"] = Field(
        description="`keep`: running requests go on, with the version that they were accepted for."
    )
    clear_cache: bool = Field(
        False, description="Has no effect: cached prompts belong to one version."
    )


class UnloadAdapterRequest(BaseModel):
    """Body of POST /v1/unload_lora_adapter, with vLLM's field names."""

    model_config = ConfigDict(extra="forbid", strict=True)

    lora_name: str
    lora_int_id: LoraIntId = None


class ValidateAdapterRequest(BaseModel):
    """Body of POST /v1/adapters/validate."""

    model_config = ConfigDict(extra="forbid", strict=True)

    lora_path: Path
    lora_name: Name | None = Field(
        None, description="Name to build the `version` of the response from."
    )


class Holder(BaseModel):
    """A worker that has a version of an adapter in memory or is loading it."""

    worker: str
    tier: Literal["device", "loading"] = Field(
        description="device: the version is in the memory that the worker computes in. "
        "loading: the worker is reading its files."
    )


class VersionBody(BaseModel):
    """One version of an adapter, with its usage since it was loaded."""

    version: str = Field(
        description="`name@digest`. The `model` field of a request accepts it as well."
    )
    state: Literal["ready", "quarantined", "retired", "unloaded"] = Field(
        description="ready: accepts requests. quarantined: accepts none, because its jobs "
        "repeatedly killed their workers. retired, unloaded: finishes the requests that it "
        "already has and accepts no others."
    )
    source: str
    kinds: list[AdapterKind] = Field(
        description="What the adapter has beside plain LoRA; workers serve only kinds they know."
    )
    rank: int = Field(description="Largest rank of any module.")
    bytes: int = Field(description="Size of the weights in the dtype that workers compute in.")
    created: int = Field(description="Unix time in seconds.")
    requests: int
    tokens: int = Field(description="Prompt tokens plus output tokens.")
    last_used_ms: int | None = Field(description="Unix time in milliseconds.")
    waiting: int = Field(description="Number of requests in its queue.")
    workers: list[Holder]


class CandidateBody(VersionBody):
    """A version that is tried out beside the current one."""

    mode: CandidateMode = Field(
        description="canary: it answers a share of the requests. shadow: it computes copies of a "
        "share of the requests, whose answers are compared with the current version's."
    )
    percent: float = Field(description="Share of the requests, from 0 to 100.")
    since_ms: int = Field(description="Unix time in milliseconds at which it became the candidate.")


class StagingBody(BaseModel):
    """Progress of an adapter that a worker fetches from a URL."""

    source: str = Field(description="URL without its query.")
    phase: Literal["receiving", "unpacking", "checking"]
    bytes: int = Field(description="Number of received bytes.")
    total_bytes: int | None = Field(
        description="Number of bytes to receive, if the source says it."
    )


class AdapterBody(VersionBody):
    """An adapter: its current version, and its previous versions in rollback order."""

    id: str
    object: Literal["adapter"] = "adapter"
    parent: str = Field(description="Name of the base model.")
    previous: list[VersionBody]
    candidate: CandidateBody | None = Field(
        None, description="Version that is tried out beside the current one."
    )
    min_replicas: int = Field(
        0, description="Minimum number of workers that hold the current version in memory."
    )


class AdapterDetails(AdapterBody):
    """An adapter, and the progress of its next version."""

    staging: StagingBody | None = Field(
        None, description="Progress of the next version, while a worker fetches it from a URL."
    )


class StagedAdapter(BaseModel):
    """An adapter that isn't registered yet, because a worker fetches it from a URL."""

    id: str
    object: Literal["adapter"] = "adapter"
    parent: str = Field(description="Name of the base model.")
    state: Literal["staging"] = "staging"
    staging: StagingBody


class AdapterList(BaseModel):
    """All adapters, sorted by name, and the versions that are still draining."""

    object: Literal["list"] = "list"
    data: list[AdapterBody]
    draining: list[VersionBody] = Field(
        description="Unloaded or replaced versions that are finishing their last requests."
    )


class DeletedAdapter(BaseModel):
    """Confirms that an adapter was unloaded."""

    id: str
    object: Literal["adapter"] = "adapter"
    deleted: Literal[True] = True


class RankCount(BaseModel):
    """A rank, and the number of the adapter's modules that have this rank."""

    rank: int
    modules: int


class BaseFit(BaseModel):
    """Base model that an adapter was checked against, and base model that it was trained on."""

    name: str
    version: str
    trained_on: str | None = Field(
        description="Base model that the adapter's own configuration names."
    )


class ValidationBody(BaseModel):
    """Outcome of checking an adapter without loading it."""

    object: Literal["adapter.validation"] = "adapter.validation"
    valid: bool = Field(description="Whether the adapter could be loaded.")
    error: ErrorDetail | None = Field(description="Why the adapter can't be loaded.")
    source: str | None = Field(description="Location of its files, with links resolved.")
    version: str | None = Field(
        None, description="`name@digest`, if the request contains lora_name."
    )
    digest: str | None = Field(
        None, description="Digest of everything in its files that affects its answers."
    )
    rank: int | None = Field(None, description="Largest rank of any module.")
    bytes: int | None = Field(
        None, description="Size of the weights in the dtype that workers compute in."
    )
    ranks: list[RankCount]
    num_tensors: int
    num_unmatched: int
    matched: list[str] = Field(
        description="Names of tensors that belong to a module of the base model; at most 500."
    )
    unmatched: list[str] = Field(description="Names of all other tensors; at most 500.")
    base: BaseFit
