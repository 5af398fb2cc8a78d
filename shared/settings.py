"""Settings of the processes. Each process creates one frozen settings object at its start.

A setting takes the value of its command-line flag. If the flag isn't given, the setting takes the
value of the environment variable `LORIKEET_<NAME>`. If the variable isn't set either, the setting
takes its default in this module. Invalid values prevent the start.

An unknown `LORIKEET_` variable is ignored with a warning, which suggests a known variable with a
similar name. If the known variable protects the server, the unknown one prevents the start.

The field descriptions appear in the help texts of the flags and in ops/docs/settings.md.
"""

import re
from collections.abc import MutableMapping
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.adapter_flags import parse_adapter_flags
from shared.adapter_sources import SourceTemplate
from shared.errors import SettingsError
from shared.protocol.enqueue import MIB, QueueLimits
from shared.protocol.tools import ToolSetting, ToolSettings
from shared.reasoning_form import ReasoningSetting
from shared.tenant_weights import parse_tenant_weights

ENV_PREFIX = "LORIKEET_"
MAX_NUMBER = 10**9
"""Largest number that any setting accepts. JSON and Lua represent it exactly, even as milliseconds
instead of seconds, or as bytes instead of MiB."""
MAX_THREADS = 4096

# Kubernetes sets variables of this form for each Service, in every container. For a Service named
# `lorikeet` or `lorikeet-redis`, these variables begin with ENV_PREFIX.
_SERVICE_NAME = re.compile(
    rf"{ENV_PREFIX}([A-Z0-9_]+_)?"
    r"(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")
_POOL = re.compile(r"^[A-Za-z0-9_-]{1,64}$")
_HOST = re.compile(r"\*|[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:]+\])(:\d{1,5})?")
"""An origin as browsers send it, in lower case and without a path, or `*` for every origin."""


def _number(
    default: int | None, description: str, *, least: int = 1, most: int = MAX_NUMBER
) -> Any:
    """Return a field for a whole number. If `default` is None, the worker chooses the number."""
    return Field(default, ge=least, le=most, description=description)


def _seconds(default: float, description: str, *, least: float = 0.1) -> Any:
    return Field(default, ge=least, le=MAX_NUMBER, allow_inf_nan=False, description=description)


class PoolSettings(BaseSettings):
    """Settings that every process has."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid")

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        description="URL of Redis or Valkey: redis://, rediss:// for TLS, or "
        "redis+sentinel://HOST1:26379,HOST2:26379/SERVICE for Sentinel.",
    )
    durability: Literal["default", "strict"] = Field(
        "default",
        description="When a request or claim is acknowledged: default, as soon as Redis has it; "
        "strict, once it also survives a power loss and failover of Redis.",
    )
    pool: str = Field(
        "main",
        pattern=_POOL.pattern,
        description="Name of the pool, which is one base model and its workers. Several pools can "
        "share a Redis.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest severity of the log lines that are written."
    )


def _words(value: Any) -> Any:
    return value.split() if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]
"""Setting that is a list. Spaces separate the values in its variable."""


def _each(form: re.Pattern[str], what: str) -> AfterValidator:
    """Return a validator for a list whose values must all match `form`."""

    def check(values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if not form.fullmatch(value):
                raise ValueError(f"{value!r} isn't {what}")
        return values

    return AfterValidator(check)


def _distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) < len(values):
        raise ValueError("a pool is named twice")
    return values


Origins = Annotated[Words, _each(_ORIGIN, "an origin such as https://app.example:8443, or *")]
Hosts = Annotated[Words, _each(_HOST, "the name of a host such as llm.example, or *")]
Pools = Annotated[Words, _each(_POOL, "the name of a pool"), AfterValidator(_distinct)]


def _template(value: str | None) -> str | None:
    if value:
        SourceTemplate(value)  # raises ValueError
    return value or None


AdapterSource = Annotated[str | None, AfterValidator(_template)]


def _adapter_source() -> Any:
    return Field(
        None,
        description="Source from which an unknown adapter is loaded at its first request, with "
        "{name} for its name, such as s3://BUCKET/{name}. Front ends and workers need the same.",
    )


def _otlp_endpoint() -> Any:
    return Field(
        "",
        pattern=r"^(https?://[^\s?#]+)?$",
        description="URL of an OpenTelemetry collector that receives traces, such as "
        "http://127.0.0.1:4318. Without it, nothing is traced.",
    )


class FileSettings(PoolSettings):
    """Settings of the processes that use the file store."""

    file_store: str | None = Field(
        None,
        min_length=1,
        description="Where the files of batches are kept: a folder, or an object store such as "
        "s3://BUCKET/PREFIX. All front ends and control processes need the same one. Without it, "
        "/v1/files and /v1/batches are refused; lorikeet up has one in --data-dir.",
    )
    file_days: int = _number(
        30, "Days after which files are deleted, and batches after their end.", most=3650
    )


class ApiSettings(FileSettings):
    """Settings of a front end."""

    further_pools: Pools = Field(
        (),
        description="Further pool on the same Redis whose models this front end serves, such as "
        "one with another base model. Repeat the flag for several pools; the variable separates "
        "them by spaces.",
    )
    host: str = Field(
        "127.0.0.1",
        description="Address to listen on. An address that other machines can reach needs API "
        "keys or --allow-anonymous.",
    )
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_words)] = Field(
        (),
        description="Key that clients must send: KEY or TENANT:KEY. Repeat the flag for several "
        "keys; the variable separates them by commas or spaces.",
    )
    api_key_file: Path | None = Field(
        None, description="File with further API keys, one per line: KEY or TENANT:KEY."
    )
    metrics_key: SecretStr | None = Field(
        None, description="Key that gives access to /metrics only, for Prometheus."
    )
    allow_anonymous: bool = Field(
        False,
        description="Serve every client that reaches --host, without keys, until the pool has "
        "stored keys. Only for closed networks.",
    )
    require_keys: bool = Field(
        False,
        description="Refuse requests without a key even before the first `lorikeet keys create`.",
    )
    port: int = Field(23333, ge=0, le=65535, description="Port to listen on; 0 picks a free port.")
    root_path: str = Field(
        "",
        pattern=r"^(/[A-Za-z0-9._~-]+)*$",
        description="Path under which a proxy publishes the server, such as /llm. Requests are "
        "served with and without it.",
    )
    cors_origins: Origins = Field(
        (),
        description="Web site whose pages may call the API, such as https://app.example, or * for "
        "all. Repeat the flag for several sites; the variable separates them by spaces.",
    )
    allowed_hosts: Hosts = Field(
        (),
        description="Name under which clients without an API key reach the server, such as "
        "llm.example, or * for all. Addresses, localhost, --host, this machine's name and names "
        "without a dot are always accepted. Repeat the flag for several names; the variable "
        "separates them by spaces.",
    )
    max_body_bytes: int = _number(
        4_000_000,
        "Maximum size of a request body in bytes. A larger one is refused with 413.",
        least=1024,
    )
    image_private_hosts: Words = Field(
        (),
        description="Host of images' URLs whose address may be private, such as a server of your "
        "own network. By default only public addresses are connected to.",
    )
    max_file_mb: int = _number(
        200,
        "Maximum size in MiB of a file that a client uploads. A larger one is refused with 413.",
    )
    max_files_tenant: int = _number(
        5_000,
        "Maximum number of files that one tenant has. Further uploads are refused until some are "
        "deleted. Output files of batches count, too, but are never refused.",
    )
    max_files_tenant_mb: int = _number(
        4_096,
        "Maximum size in MiB of all files that one tenant has. Further uploads are refused until "
        "some are deleted.",
    )
    max_batches_tenant: int = _number(
        1_000,
        "Maximum number of batches that one tenant has, ended or not. Further ones are refused "
        "until ended ones are deleted or expire.",
    )
    max_adapter_mb: int = _number(
        512,
        "Maximum size in MiB of an adapter that a client sends as a body. A larger one is refused "
        "with 413.",
    )
    adapter_source: AdapterSource = _adapter_source()
    keep_versions: int = _number(
        4,
        "Number of earlier versions that an adapter keeps for rollbacks. Older ones are deleted "
        "once their last request has ended.",
        least=0,
        most=16,
    )
    max_header_bytes: int = _number(
        32_768,
        "Maximum size of request line and headers together, in bytes. A larger one is refused with "
        "431.",
        least=1024,
    )
    max_connections: int = _number(
        4096, "Maximum number of connections of one front end. Further ones are refused with 503."
    )
    header_timeout_s: float = _seconds(
        10, "Time limit in seconds for receiving a request's headers, then 408."
    )
    body_timeout_s: float = _seconds(
        60, "Time limit in seconds for receiving a request's body, then 408."
    )
    send_timeout_s: float = _seconds(
        30, "Seconds after which a client that doesn't read its answer is disconnected."
    )
    max_waiting: int = _number(
        10_000, "Maximum number of waiting jobs of the pool. Further requests are refused with 429."
    )
    max_waiting_adapter: int = _number(
        5_000,
        "Maximum number of waiting jobs of one adapter. Further requests are refused with 429.",
    )
    max_waiting_tenant: int = _number(
        5_000,
        "Maximum number of waiting jobs of one tenant. Further requests are refused with 429.",
    )
    max_waiting_mb: int = _number(
        1024,
        "Maximum size of the pool's unfinished requests in MiB, and never more than half of Redis' "
        "memory. Further requests are refused with 429.",
    )
    max_waiting_tenant_mb: int = _number(
        256,
        "Maximum size of one tenant's unfinished requests in MiB, and never more than a quarter "
        "of Redis' memory. Further requests are refused with 429.",
    )
    deadline_s: float = _seconds(
        600, "Time limit in seconds from accepting a request to the end of its answer, then 504."
    )
    retain_s: float = _seconds(600, "Seconds for which a finished job can be looked up.", least=1)
    retain_mb: int = _number(
        512,
        "Maximum memory of all finished jobs in MiB, and never more than half of Redis' memory. "
        "Beyond it, the oldest ones of the tenant that keeps most are deleted before --retain-s.",
    )
    unanswered_days: int = _number(
        7,
        "Days for which failed, dead, cancelled and expired jobs can be listed with their reasons "
        "and timelines, without prompts and answers.",
        most=3650,
    )
    unanswered_mb: int = _number(
        64,
        "Maximum memory of these records in MiB, and never more than an eighth of Redis' memory. "
        "Beyond it, the oldest ones of the tenant that has most are deleted.",
    )
    usage_days: int = _number(
        400, "Days for which /v1/usage keeps what each tenant has used.", most=3650
    )
    disconnect_grace_s: float = _seconds(
        5,
        "Seconds that a client has to come back after its connection breaks. Then its job is "
        "cancelled.",
        least=0,
    )
    drain_s: float = _seconds(
        30,
        "Seconds that running answers have to finish after SIGTERM. Clients continue the rest on "
        "another front end.",
        least=0,
    )
    tenant_weights: Words = Field(
        (),
        description="Weight of a tenant in fair queueing: NAME=WEIGHT, by default 1. Repeat the "
        "flag for several tenants; the variable separates them by commas or spaces.",
    )

    otlp_endpoint: str = _otlp_endpoint()

    @cached_property
    def weight_by_tenant(self) -> dict[str, float]:
        """Weights in `tenant_weights`, by tenant."""
        return parse_tenant_weights(self.tenant_weights)

    def weight_of(self, tenant: str) -> float:
        """Return the tenant's weight in fair queueing."""
        return self.weight_by_tenant.get(tenant, 1.0)

    @property
    def queue_limits(self) -> QueueLimits:
        """Limits for enqueueing jobs."""
        return QueueLimits(
            max_waiting=self.max_waiting,
            max_waiting_adapter=self.max_waiting_adapter,
            max_waiting_tenant=self.max_waiting_tenant,
            retain_ms=int(self.retain_s * 1000),
            max_bytes=self.max_waiting_mb * MIB,
            max_bytes_tenant=self.max_waiting_tenant_mb * MIB,
            retain_bytes=self.retain_mb * MIB,
            usage_days=self.usage_days,
            unanswered_days=self.unanswered_days,
            unanswered_bytes=self.unanswered_mb * MIB,
        )

    @model_validator(mode="after")
    def _check_weights(self) -> "ApiSettings":
        _ = self.weight_by_tenant  # raises SettingsError before the process does anything else
        return self

    @model_validator(mode="before")
    @classmethod
    def _without_service_url(cls, values: dict[str, Any]) -> dict[str, Any]:
        if _SERVICE_URL.match(str(values.get("port"))):
            return {name: value for name, value in values.items() if name != "port"}
        return values


class WorkerSettings(PoolSettings):
    """Settings of a worker. A worker runs one engine with one base model and its adapters."""

    engine: Literal["native", "vllm", "simulated"] = Field(
        "native",
        description="Engine that computes the answers: native; vllm, for bases that are quantised, "
        "need several GPUs or aren't supported by native; simulated, a stand-in that needs no "
        "files and no GPU, for load tests.",
    )
    model: str = Field(
        description="Base model: a folder, a GGUF file, a hub id (ORG/REPO), or demo. Any name "
        "with --engine simulated."
    )
    served_name: str | None = Field(
        None,
        description="Name by which clients request the base model. By default its folder's name "
        "or its hub id.",
    )
    adapters: Words = Field(
        (),
        description="Adapters to serve, separated by spaces: NAME=FOLDER, NAME=ORG/REPO, or a "
        "path whose last part is the name.",
    )
    skip_bad_adapters: bool = Field(
        False,
        description="Leave out the adapters that can't be served, instead of refusing to start.",
    )
    tool_call_parser: ToolSetting = Field(
        "auto",
        description="Form in which the model writes tool calls. auto detects it in the chat "
        "template.",
    )
    generic_tools: bool = Field(
        True,
        description="Let models whose chat template shows no tools call tools in a generic form.",
    )
    reasoning_parser: ReasoningSetting = Field(
        "auto",
        description="Form in which the model marks its reasoning: <think> or [THINK]. auto detects "
        "it in the chat template, none leaves the reasoning in the content.",
    )
    device: str = Field(
        "auto",
        description="Device of the engine, such as cpu, cuda or cuda:1. auto selects the first "
        "GPU, or the CPU if there is none.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Type of weights, activations and KV cache. auto means bfloat16."
    )
    quantize: Literal["int8"] | None = Field(
        None,
        description="Type to which the native engine quantises the base model's linears on a CPU: "
        "int8 takes half of the memory of bfloat16 and is faster. By default they aren't "
        "quantised.",
    )
    cpu_level: Literal[
        "auto", "amx", "avx512-bf16", "avx512-vnni", "avx512", "avx-vnni", "avx2"
    ] = Field(
        "auto",
        description="Instruction set of the native engine's kernels on an x86 CPU. auto selects "
        "the fastest one that the CPU has. The others are for tests and comparisons.",
    )
    memory_fraction: float = Field(
        0.9,
        gt=0,
        le=1,
        description="Part of the device's memory that the worker may use, weights included. The "
        "sizes below follow from it unless they are set. lorikeet up divides it among the workers "
        "of a device.",
    )
    max_num_seqs: int | None = _number(
        None,
        "Maximum number of sequences in a batch. A higher value increases the throughput and slows "
        "each answer. By default 64, on GPUs up to 256.",
    )
    max_num_batched_tokens: int | None = _number(
        None,
        "Maximum number of tokens per engine step. A higher value speeds up long prompts and "
        "delays running answers. By default 512, on GPUs up to 8192.",
        least=16,
    )
    max_model_len: int | None = _number(
        None, "Context length in tokens, at most the model's. By default the model's.", least=8
    )
    kv_cache_mb: int | None = _number(
        None,
        "Memory for the KV cache, in MiB. It limits how many tokens run at once. By default the "
        "GPU's remaining memory; on a CPU about 2048.",
    )
    prefix_cache: bool = Field(
        True,
        description="Reuse the KV cache of equal prompt beginnings, per adapter and tenant.",
    )
    forced_tokens: bool = Field(
        True,
        description="Output tokens without a step where a schema or grammar allows no other. Only "
        "with --engine native.",
    )
    prompt_lookup: bool = Field(
        True,
        description="Let steps verify tokens that repeat the prompt or the answer, where it pays. "
        "Only with --engine native.",
    )
    adapter_memory_mb: int | None = _number(
        None,
        "Memory for resident adapters, in MiB. Increase it if adapters are often evicted. By "
        "default an eighth of the GPU's remaining memory, at most 8192; on a CPU up to 1024.",
    )
    adapter_host_mb: int = _number(
        1024,
        "Host memory for adapters that can become resident quickly, in MiB. On a CPU it is added "
        "to --adapter-memory-mb, and the default is less on a small machine.",
        least=0,
    )
    adapter_roots: Words = Field(
        (),
        description="Folder, hub:ORG for an organisation of the Hugging Face hub, or URL "
        "(s3://BUCKET/PATH, gs://BUCKET/PATH, https://HOST/PATH), below which clients may load "
        "adapters at run time. By default the parent folders of --adapters.",
    )
    adapter_private_hosts: Words = Field(
        (),
        description="Host of an --adapter-root URL whose address may be private, such as a server "
        "of your own network. By default only public addresses are connected to.",
    )
    adapter_source: AdapterSource = _adapter_source()
    adapter_download_mb: int = _number(
        2048, "Maximum size in MiB of an adapter from a URL, packed and unpacked."
    )
    adapter_store: Path | None = Field(
        None,
        description="Folder for copies of adapter files, so that a version stays available when "
        "its source changes. By default in ~/.cache/lorikeet.",
    )
    adapter_store_mb: int = _number(10_240, "Maximum size of --adapter-store, in MiB.")
    max_lora_rank: int = _number(
        64, "Largest rank of an adapter with --engine vllm. All adapters take the memory of it."
    )
    tensor_parallel: int = _number(
        1, "Number of GPUs that share each layer of the base model, with --engine vllm."
    )
    pipeline_parallel: int = _number(
        1, "Number of groups of GPUs that share the base model's layers, with --engine vllm."
    )
    quantization: str | None = Field(
        None,
        description="Quantisation method of the base model's weights, with --engine vllm. By "
        "default the one that the model names.",
    )
    vllm_args: str = Field(
        "",
        description="Further arguments of `vllm serve`, with --engine vllm, such as "
        '"--kv-cache-dtype fp8".',
    )
    vllm_python: Path | None = Field(
        None,
        description="Python of the virtual environment in which vLLM is installed. By default "
        "the worker's own, or .venv-vllm beside it.",
    )
    simulated_step_ms: int = _number(
        20, "Milliseconds that the simulated engine takes for a step.", least=0
    )
    simulated_load_ms: int = _number(
        50, "Milliseconds that the simulated engine takes to read an adapter.", least=0
    )
    simulated_answer_tokens: int | None = _number(
        None,
        "Number of tokens after which the simulated engine ends an answer. By default each token "
        "is the last one with a probability of 1/256.",
    )
    threads: int | None = _number(
        None, "CPU threads of the engine. By default one per available core.", most=MAX_THREADS
    )
    lease_ms: int = _number(
        6000,
        "Milliseconds without a heartbeat after which a worker is given up and its jobs run "
        "elsewhere.",
        least=300,
        most=20_000,  # `reap.lua` takes a longer lease for the result of a clock that jumped
    )
    stall_s: float = _seconds(
        60,
        "Seconds without a finished engine step, or without a turn of the event loop, after which "
        "the worker exits, so that its supervisor restarts it.",
    )
    drain_s: float = _seconds(
        30,
        "Seconds that running jobs have to finish after SIGTERM. Other workers continue the rest.",
        least=0,
    )

    otlp_endpoint: str = _otlp_endpoint()

    @cached_property
    def adapter_sources(self) -> dict[str, str]:
        """Absolute folder path or hub id of each adapter in `adapters`, by adapter name."""
        return parse_adapter_flags(self.adapters)

    @model_validator(mode="after")
    def _check_adapters(self) -> "WorkerSettings":
        _ = self.adapter_sources  # raises SettingsError before the process does anything else
        return self

    @property
    def tool_settings(self) -> ToolSettings:
        """Settings for tool calls."""
        return ToolSettings(form=self.tool_call_parser, allows_generic=self.generic_tools)

    def dtype_text(self, dtype: str) -> str:
        """Return `dtype` and that of quantised weights, if any: "bfloat16 with int8 weights"."""
        return dtype if self.quantize is None else f"{dtype} with {self.quantize} weights"

    @model_validator(mode="after")
    def _check_quantize(self) -> "WorkerSettings":
        if self.quantize is not None and self.engine != "native":
            raise SettingsError(
                f"--quantize {self.quantize} needs --engine native; --engine {self.engine} doesn't "
                "quantise weights itself"
            )
        return self


class ControlSettings(FileSettings):
    """Settings of a control process.

    A control process removes dead workers from the pool, even if no live worker is left to do so.
    It audits the pool's keys, deletes old dead letters, releases adapters from quarantine, and runs
    batches.
    """

    quarantine_s: float = _seconds(
        600,
        "Seconds after which a quarantined adapter takes requests again. With 0, only `lorikeet "
        "adapters release` releases it.",
        least=0,
    )
    dead_letter_days: int = _number(30, "Days for which dead letters are kept.")
    dead_letters_mb: int = _number(
        64, "Maximum size of all dead letters, in MiB. Beyond it, the oldest ones are deleted."
    )
    webhook_url: str = Field(
        "",
        pattern=r"^(https?://[^\s]+)?$",
        description="URL that is called when a batch ends, with a signature as in the Standard "
        "Webhooks specification. Needs --webhook-secret.",
    )
    webhook_secret: SecretStr | None = Field(
        None, description="Secret that signs the calls of --webhook-url: whsec_ and base64."
    )


class UpSettings(PoolSettings):
    """Settings of `lorikeet up`, in addition to those of the processes that it starts."""

    data_dir: Path | None = Field(
        None,
        description="Folder in which jobs, loaded adapters and their versions survive a restart, "
        "with a subfolder for each pool and base model. none keeps nothing. By default "
        "~/.local/share/lorikeet. Unused with --redis-url.",
    )


S = TypeVar("S", bound=PoolSettings)


def load_settings(cls: type[S], **given: Any) -> S:
    """Return settings from flags and the environment. In `given`, None means a missing flag.

    Raises:
        SettingsError: a value is invalid. The message names the setting.
    """
    try:
        return cls(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise SettingsError("; ".join(_describe(e) for e in error.errors())) from None


def drop_unknown_variables(environ: MutableMapping[str, str]) -> list[str]:
    """Remove from `environ` the `LORIKEET_` variables that no command reads.

    Child processes therefore don't repeat the warnings.

    Returns:
        A warning for each removed variable, which suggests a known one with a similar name.

    Raises:
        SettingsError: an unknown variable may be a misspelling of one that protects the server.
            Without the protection, the server could be open to everybody.
    """
    known = {ENV_PREFIX + name.upper() for cls in _ALL for name in cls.model_fields}
    known |= {ENV_PREFIX + name for name in _CLIENT_VARIABLES}
    warnings = []
    for name, value in sorted(environ.items()):
        if name.startswith(ENV_PREFIX) and name not in known and not _is_of_service(name, value):
            close = get_close_matches(name, known, n=1, cutoff=_LEAST_SIMILARITY)
            if close and close[0] in _PROTECTIVE_VARIABLES:
                raise SettingsError(
                    f"unknown environment variable {name}; did you mean {close[0]}? Correct or "
                    "unset it"
                )
            del environ[name]
            hint = f"; did you mean {close[0]}?" if close else ""
            warnings.append(f"unknown environment variable {name} is ignored{hint}")
    return warnings


def _is_of_service(name: str, value: str) -> bool:
    """Return whether Kubernetes has set the variable `name` for a Service."""
    is_url = name.endswith("_PORT") and _SERVICE_URL.match(value)
    return bool(is_url or _SERVICE_NAME.fullmatch(name))


def _describe(error: Any) -> str:
    flag = flag_of(".".join(str(part) for part in error["loc"]))
    if error["type"] == "missing":
        return f"{flag} is required"
    return f"{flag}: {error['msg']} (got {error['input']!r})"


def flag_of(name: str) -> str:
    """Return the command-line flag of the setting `name`."""
    return "--" + _FLAG_NAMES.get(name, name).replace("_", "-")


_FLAG_NAMES = {
    "api_keys": "api_key",
    "adapter_roots": "adapter_root",
    "adapter_private_hosts": "adapter_private_host",
    "image_private_hosts": "image_private_host",
    "tenant_weights": "tenant_weight",
}
"""Names of flags that differ from their settings: the setting is a list, and the flag, which can be
repeated, takes a single value."""
_CLIENT_VARIABLES = ("URL",)
"""Variables of commands that are clients of a server. They aren't settings of a process."""
_PROTECTIVE_VARIABLES = {
    ENV_PREFIX + name
    for name in (
        *("API_KEYS", "API_KEY_FILE", "METRICS_KEY", "ALLOW_ANONYMOUS", "REQUIRE_KEYS"),
        "REDIS_URL",
    )
}
"""Variables that decide who can reach the server and its data."""
_LEAST_SIMILARITY = 0.8
"""Minimum similarity of two names, from 0 to 1, to suggest one for the other."""
_ALL: tuple[type[PoolSettings], ...] = (ApiSettings, WorkerSettings, ControlSettings, UpSettings)
"""Classes of settings that have variables."""
