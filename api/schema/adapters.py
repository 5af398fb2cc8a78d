"""/v1/adapters and vLLM's routes: what is accepted and returned."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from api.schema.errors import ErrorDetail
from shared.adapter_names import NAME_PATTERN, NAME_RULE, is_valid_name


def _valid_name(name: str) -> str:
    if not is_valid_name(name):
        raise ValueError(f"must be a name: {NAME_RULE}")
    return name


def _valid_path(path: str) -> str:
    if "\0" in path:
        raise ValueError("must not hold a NUL")
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
        description="a folder as the worker sees it, under an --adapter-root of the worker; or "
        "org/repo of the Hugging Face hub, where the worker has --adapter-root hub:org",
    ),
    AfterValidator(_valid_path),
]


class LoadAdapterRequest(BaseModel):
    """POST /v1/load_lora_adapter, with vLLM's fields."""

    model_config = ConfigDict(extra="forbid", strict=True)

    lora_name: Name
    lora_path: Path
    load_inplace: bool = Field(False, description="replace the adapter that has the name")


class UnloadAdapterRequest(BaseModel):
    """POST /v1/unload_lora_adapter, with vLLM's fields."""

    model_config = ConfigDict(extra="forbid", strict=True)

    lora_name: str


class ValidateAdapterRequest(BaseModel):
    """POST /v1/adapters/validate."""

    model_config = ConfigDict(extra="forbid", strict=True)

    lora_path: Path
    lora_name: Name | None = Field(None, description="what it would be called")


class Holder(BaseModel):
    """A worker that has a version."""

    worker: str
    tier: Literal["device", "loading"] = Field(
        description="device: in the memory that it computes in; loading: it is being read"
    )


class VersionBody(BaseModel):
    """One version of an adapter, and what it was used for since it was loaded."""

    version: str = Field(description="name@digest; can be the `model` of a request, too")
    state: Literal["ready", "quarantined", "retired", "unloaded"] = Field(
        description="quarantined: its jobs killed their workers, so it takes no more; retired and "
        "unloaded: it only ends the jobs that it has"
    )
    source: str
    rank: int = Field(description="the largest of any module")
    bytes: int = Field(description="of its weights, in the dtype that workers compute in")
    created: int = Field(description="Unix time")
    requests: int
    tokens: int = Field(description="of prompts and answers")
    last_used_ms: int | None = Field(description="Unix time in milliseconds")
    waiting: int = Field(description="requests in its queue")
    workers: list[Holder]


class AdapterBody(VersionBody):
    """An adapter: its current version, and the previous ones, next rollback first."""

    id: str
    object: Literal["adapter"] = "adapter"
    parent: str = Field(description="the base model")
    previous: list[VersionBody]


class AdapterList(BaseModel):
    """All adapters by name, and what is left of those that were unloaded or replaced."""

    object: Literal["list"] = "list"
    data: list[AdapterBody]
    draining: list[VersionBody] = Field(description="versions that only end their last requests")


class DeletedAdapter(BaseModel):
    """What unloading came to."""

    id: str
    object: Literal["adapter"] = "adapter"
    deleted: Literal[True] = True


class RankCount(BaseModel):
    """How many modules have a rank."""

    rank: int
    modules: int


class BaseFit(BaseModel):
    """What the adapter was checked against."""

    name: str
    version: str
    trained_on: str | None = Field(description="the base model by the adapter's own account")


class ValidationBody(BaseModel):
    """What a dry run of loading came to."""

    object: Literal["adapter.validation"] = "adapter.validation"
    valid: bool = Field(description="whether loading it would be accepted")
    error: ErrorDetail | None = Field(description="why not")
    source: str | None = Field(description="where its files are, with links resolved")
    version: str | None = Field(None, description="name@digest, if lora_name was sent")
    digest: str | None = Field(None, description="of all that changes its answers")
    rank: int | None = Field(None, description="the largest of any module")
    bytes: int | None = Field(
        None, description="of its weights, in the dtype that workers compute in"
    )
    ranks: list[RankCount]
    num_tensors: int
    num_unmatched: int
    matched: list[str] = Field(description="tensors for modules of the base model; at most 500")
    unmatched: list[str] = Field(description="all others; at most 500")
    base: BaseFit
