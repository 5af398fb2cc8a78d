"""Requests and responses of /v1/adapters and of vLLM's load and unload routes."""

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from api.schema.base import Body, StrictBody
from api.schema.errors import ErrorDetail
from shared.adapter_names import NAME_PATTERN, NAME_RULE, is_valid_name
from shared.protocol.adapter_files import CONFIG_KEY, upload_of
from shared.protocol.capabilities import AdapterKind
from shared.protocol.ids import AdapterVersion
from shared.store.adapters.candidates import CandidateMode


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


class LoadAdapterRequest(StrictBody):
    """Body of POST /v1/load_lora_adapter, with vLLM's field names."""

    lora_name: Name
    lora_path: Path
    load_inplace: bool = False
    """Whether to replace an adapter that already has this name."""
    pinned: bool = False
    """Whether a worker always keeps the adapter in memory, as with PUT /v1/adapters/{name}/pin."""
    lora_int_id: LoraIntId = None


class UploadAdapterQuery(StrictBody):
    """Query of POST /v1/adapters, whose body is a safetensors file unless `source` is given."""

    name: Name
    config: str | None = Field(
        None,
        max_length=1 << 20,
        description="Text of adapter_config.json. If it is left out, the metadata of the "
        f"safetensors file must hold it under the key `{CONFIG_KEY}`. The metadata may also hold "
        "the texts of chat_template.jinja, tokenizer_config.json and generation_config.json, under "
        "these names.",
    )
    source: Path | None = None
    """Source of the adapter instead of a body, in a form that `lora_path` accepts."""
    replace: Literal["true", "false"] = "true"
    """Whether the adapter may replace one that has this name. With `false`, a request for a name
    that is taken gets status 400, before its body is read."""
    candidate: Literal["true", "false"] = "false"
    """Whether the adapter becomes the candidate of a loaded name. Without `canary`, it takes no
    requests until PUT /v1/adapters/{name}/candidate gives it a share."""
    canary: float | None = Field(None, ge=0, le=100, allow_inf_nan=False, strict=False)
    """Share of the requests, in percent, for an adapter that becomes a candidate: with this field,
    it is one, as with `candidate=true`."""

    @property
    def is_candidate(self) -> bool:
        """Whether the adapter becomes a candidate."""
        return self.candidate == "true" or self.canary is not None


class RollBackQuery(StrictBody):
    """Query of POST /v1/adapters/{name}/rollback."""

    version: AdapterVersion | None = Field(None, min_length=1)
    """Kept version to return to, as `name@digest`. By default, the previous one."""


class PauseQuery(Body):
    """Query of POST /pause, with vLLM's parameters."""

    model_config = ConfigDict(extra="forbid")

    mode: Literal["keep"]
    """`keep`: running requests go on, with the version that they were accepted for."""
    clear_cache: bool = False
    """Has no effect: cached prompts belong to one version."""


class UnloadAdapterRequest(StrictBody):
    """Body of POST /v1/unload_lora_adapter, with vLLM's field names."""

    lora_name: str
    lora_int_id: LoraIntId = None


class ValidateAdapterRequest(StrictBody):
    """Body of POST /v1/adapters/validate."""

    lora_path: Path
    lora_name: Name | None = None
    """Name from which the `version` of the response is built."""


class Holder(Body):
    """A worker that has a version of an adapter in memory or is loading it."""

    worker: str
    tier: Literal["device", "loading"]
    """device: the version is in the memory that the worker computes in. loading: the worker is
    reading its files."""


class VersionBody(Body):
    """One version of an adapter, with its usage since it was loaded."""

    version: str
    """`name@digest`. The `model` field of a request accepts it as well."""
    state: Literal["ready", "quarantined", "retired", "unloaded"]
    """ready: accepts requests. quarantined: accepts none, because its jobs repeatedly killed their
    workers. retired, unloaded: finishes the requests that it already has and accepts no others."""
    source: str
    kinds: list[AdapterKind]
    """Features of the adapter other than plain LoRA. A worker serves only kinds that it knows."""
    other_base: str | None = None
    """Base model that the adapter names as its own, if it isn't the served one. The adapter's
    shapes fit, but its answers are probably useless."""
    rank: int = Field(description="Largest rank of any module.")
    bytes: int = Field(description="Size of the weights in the dtype that workers compute in.")
    created: int = Field(description="Unix time in seconds.")
    requests: int = Field(description="Number of ended requests.")
    tokens: int = Field(description="Prompt tokens plus output tokens.")
    failed: int = Field(description="Number of requests that ended with an error.")
    mean_answer_s: float | None
    """Mean time of a request on its worker, from the claim to the last token. null before the first
    answer."""
    last_used_ms: int | None = Field(description="Unix time in milliseconds.")
    waiting: int = Field(description="Number of requests in its queue.")
    workers: list[Holder]


class CandidateBody(VersionBody):
    """A version that is tried out alongside the current one."""

    mode: CandidateMode
    """canary: it answers a share of the requests. shadow: it computes copies of a share of the
    requests, whose answers are compared with the current version's."""
    percent: float = Field(description="Share of the requests, from 0 to 100.")
    since_ms: int = Field(description="Unix time in milliseconds at which it became the candidate.")


class StagingBody(Body):
    """Progress of an adapter that a worker fetches from a URL."""

    source: str = Field(description="URL without its query.")
    phase: Literal["receiving", "unpacking", "checking"]
    bytes: int = Field(description="Number of received bytes.")
    total_bytes: int | None
    """Number of bytes to receive, if the source states it."""


class AdapterBody(VersionBody):
    """An adapter: its current version, and its previous versions in rollback order."""

    id: str
    object: Literal["adapter"] = "adapter"
    parent: str = Field(description="Name of the base model.")
    previous: list[VersionBody]
    candidate: CandidateBody | None = None
    """Version that is tried out alongside the current one."""
    min_replicas: int = 0
    """Minimum number of workers that hold the current version in memory."""
    is_paused: bool = Field(False, description="Whether its jobs wait until it is resumed.")


class AdapterDetails(AdapterBody):
    """An adapter, and the progress of its next version."""

    staging: StagingBody | None = None
    """Progress of the next version, while a worker fetches it from a URL."""


class StagedAdapter(Body):
    """An adapter that isn't registered yet, because a worker fetches it from a URL."""

    id: str
    object: Literal["adapter"] = "adapter"
    parent: str = Field(description="Name of the base model.")
    state: Literal["staging"] = "staging"
    staging: StagingBody


class AdapterList(Body):
    """All adapters, sorted by name, and the versions that are still draining."""

    object: Literal["list"] = "list"
    data: list[AdapterBody]
    draining: list[VersionBody]
    """Unloaded or replaced versions that are finishing their last requests."""


class DeletedAdapter(Body):
    """Confirms that an adapter was unloaded."""

    id: str
    object: Literal["adapter"] = "adapter"
    deleted: Literal[True] = True


class RankCount(Body):
    """A rank, and the number of the adapter's modules that have this rank."""

    rank: int
    modules: int


class BaseFit(Body):
    """Base model that an adapter was checked against, and base model that it was trained on."""

    name: str
    version: str
    trained_on: str | None
    """Base model that the adapter's own configuration names."""
    is_other: bool = False
    """Whether the adapter is valid, but names another base model than the served one."""


class ValidationBody(Body):
    """Outcome of checking an adapter without loading it."""

    object: Literal["adapter.validation"] = "adapter.validation"
    valid: bool = Field(description="Whether the adapter could be loaded.")
    error: ErrorDetail | None = Field(description="Why the adapter can't be loaded.")
    source: str | None = Field(description="Location of its files, with links resolved.")
    version: str | None = None
    """`name@digest`, if the request contains lora_name."""
    digest: str | None = None
    """Digest of everything in the adapter's files that affects its answers."""
    rank: int | None = Field(None, description="Largest rank of any module.")
    bytes: int | None = None
    """Size of the weights in the dtype that workers compute in."""
    ranks: list[RankCount]
    num_tensors: int
    num_unmatched: int
    matched: list[str]
    """Names of tensors that belong to a module of the base model; at most 500."""
    unmatched: list[str] = Field(description="Names of all other tensors; at most 500.")
    base: BaseFit
