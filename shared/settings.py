"""What can be set, one frozen class per process; read once at start and passed down.

A value comes from its command-line flag, else from the variable `LORIKEET_<NAME>`, else from the
default here. Unknown `LORIKEET_` variables and bad values stop the start.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.errors import SettingsError

ENV_PREFIX = "LORIKEET_"
MAX_NUMBER = 10**9
"""Products of it with milliseconds or bytes stay exact in JSON and in Redis' scripts."""
MAX_THREADS = 4096

# Kubernetes gives every container such variables for each Service: of a Service `lorikeet`, or
# `lorikeet-redis`, they look like ours.
_SERVICE_NAME = re.compile(
    rf"{ENV_PREFIX}([A-Z0-9_]+_)?"
    r"(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")


class PoolSettings(BaseSettings):
    """What every process needs: where Redis is, and which pool of it."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid")

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        description="Redis or Valkey; rediss:// for TLS, "
        "redis+sentinel://host1:26379,host2:26379/service for Sentinel",
    )
    durability: Literal["default", "strict"] = Field(
        "default",
        description="strict: acknowledge requests and claims once they outlive power loss and "
        "failover of Redis",
    )
    pool: str = Field(
        "main", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="one base model and its workers"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe log lines shown"
    )


def _words(value: Any) -> Any:
    return value.split() if isinstance(value, str) else value


class ApiSettings(PoolSettings):
    """The front end."""

    host: str = Field("127.0.0.1", description="address to listen on")
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_words)] = Field(
        (),
        description="key, or tenant:key, that clients must send; the variable takes several, "
        "separated by commas or spaces",
    )
    api_key_file: Path | None = Field(None, description="file of such keys, one a line")
    metrics_key: SecretStr | None = Field(
        None, description="key that opens /metrics, and nothing else; for Prometheus"
    )
    allow_anonymous: bool = Field(
        False, description="serve all who reach --host, without keys; for closed networks"
    )
    port: int = Field(23333, ge=0, le=65535, description="port to listen on; 0 picks a free one")
    max_body_bytes: int = Field(
        4_000_000, ge=1024, le=MAX_NUMBER, description="largest request body"
    )
    max_header_bytes: int = Field(
        32_768,
        ge=1024,
        le=MAX_NUMBER,
        description="largest request line and headers together, then 431",
    )
    max_connections: int = Field(
        4096, ge=1, le=MAX_NUMBER, description="connections of one front end, then 503"
    )
    header_timeout_s: float = Field(
        10,
        ge=0.1,
        le=MAX_NUMBER,
        allow_inf_nan=False,
        description="time for a request's headers to arrive, then 408",
    )
    body_timeout_s: float = Field(
        60,
        ge=0.1,
        le=MAX_NUMBER,
        allow_inf_nan=False,
        description="time for a request's body to arrive, then 408",
    )
    send_timeout_s: float = Field(
        30,
        ge=0.1,
        le=MAX_NUMBER,
        allow_inf_nan=False,
        description="a client that takes nothing of its answer for this long is cut off",
    )
    max_waiting: int = Field(
        10_000, ge=1, le=MAX_NUMBER, description="waiting jobs of the pool, then 429"
    )
    max_waiting_adapter: int = Field(
        5_000, ge=1, le=MAX_NUMBER, description="waiting jobs of one adapter, then 429"
    )
    max_waiting_tenant: int = Field(
        5_000, ge=1, le=MAX_NUMBER, description="waiting jobs of one tenant, then 429"
    )
    max_waiting_mb: int = Field(
        1024,
        ge=1,
        le=MAX_NUMBER,
        description="MiB of unfinished requests of the pool, then 429; at most half of Redis' "
        "memory",
    )
    max_waiting_tenant_mb: int = Field(
        256,
        ge=1,
        le=MAX_NUMBER,
        description="MiB of unfinished requests of one tenant, then 429; at most a quarter of "
        "Redis' memory",
    )
    deadline_s: float = Field(
        600,
        ge=0.1,
        le=MAX_NUMBER,
        allow_inf_nan=False,
        description="time from acceptance to answer, then 504",
    )
    retain_s: float = Field(
        600,
        ge=1,
        le=MAX_NUMBER,
        allow_inf_nan=False,
        description="how long a finished job can be looked up",
    )

    @model_validator(mode="before")
    @classmethod
    def _without_service_url(cls, values: dict[str, Any]) -> dict[str, Any]:
        if _SERVICE_URL.match(str(values.get("port"))):
            return {name: value for name, value in values.items() if name != "port"}
        return values


class WorkerSettings(PoolSettings):
    """One worker: one engine, one base model, any number of adapters."""

    model: str = Field(description="base model: a folder, a hub id, or `demo`")
    served_name: str | None = Field(
        None, description="the base model's name; by default its folder's or hub id"
    )
    adapters: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)] = Field(
        (),
        description="name=folder or name=org/repo; one bare path takes its folder's name; "
        "several are separated by spaces",
    )
    tool_call_parser: Literal["auto", "hermes", "llama3_json", "none"] = Field(
        "auto", description="how the model writes tool calls; auto asks its chat template"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, ...")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="weights, activations and KV cache; auto is bfloat16"
    )
    max_num_seqs: int = Field(64, ge=1, le=MAX_NUMBER, description="sequences computed together")
    max_num_batched_tokens: int = Field(
        512, ge=16, le=MAX_NUMBER, description="tokens per engine step"
    )
    max_model_len: int | None = Field(
        None, ge=8, le=MAX_NUMBER, description="context length; by default the model's"
    )
    kv_cache_mb: int = Field(
        2048, ge=1, le=MAX_NUMBER, description="memory for the KV cache, in MiB"
    )
    prefix_cache: bool = Field(
        True, description="share the KV cache of equal beginnings, per adapter and tenant"
    )
    adapter_memory_mb: int = Field(
        1024, ge=1, le=MAX_NUMBER, description="memory for resident adapters, in MiB"
    )
    adapter_host_mb: int = Field(
        1024,
        ge=0,
        le=MAX_NUMBER,
        description="host memory for copies of adapters that are quickly resident again, in MiB; "
        "on CPUs as much more for resident ones",
    )
    adapter_roots: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)] = Field(
        (),
        description="folder whose adapters clients may load at run time, or hub:ORG for those of "
        "an organisation of the Hugging Face hub; by default the parents of the folders in "
        "--adapters",
    )
    adapter_store: Path | None = Field(
        None,
        description="folder for copies of adapters' files, so that a version outlives its source; "
        "by default in ~/.cache/lorikeet",
    )
    adapter_store_mb: int = Field(
        10_240, ge=1, le=MAX_NUMBER, description="disk space for these copies, in MiB"
    )
    threads: int | None = Field(
        None, ge=1, le=MAX_THREADS, description="CPU threads of the engine; by default all"
    )
    lease_ms: int = Field(
        # What a dead worker showed last is read from reply streams, which keep a minute.
        6000,
        ge=300,
        le=20_000,
        description="a worker silent for this long is given up",
    )
    stall_s: float = Field(
        60,
        ge=0.1,
        le=MAX_NUMBER,
        allow_inf_nan=False,
        description="a worker whose engine finishes no step for this long ends, to start anew",
    )
    drain_s: float = Field(
        30,
        ge=0,
        le=MAX_NUMBER,
        allow_inf_nan=False,
        description="on SIGTERM, time to finish running jobs before they are handed on",
    )


class ControlSettings(PoolSettings):
    """The control process: reaps dead workers when no worker is left to do it."""


S = TypeVar("S", bound=PoolSettings)


def load_settings(cls: type[S], **given: Any) -> S:
    """Settings of class `cls` from the flags `given` (None: not given) and the environment.

    Raises:
        SettingsError: a value is bad, or a LORIKEET_ variable is unknown; the message names it.
    """
    _refuse_unknown_variables()
    try:
        return cls(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise SettingsError("; ".join(_describe(e) for e in error.errors())) from None


def _refuse_unknown_variables() -> None:
    known = {ENV_PREFIX + name.upper() for cls in _ALL for name in cls.model_fields}
    for name, value in os.environ.items():
        if name.startswith(ENV_PREFIX) and name not in known and not _is_of_service(name, value):
            raise SettingsError(f"unknown environment variable {name}")


def _is_of_service(name: str, value: str) -> bool:
    is_url = name.endswith("_PORT") and _SERVICE_URL.match(value)
    return bool(is_url or _SERVICE_NAME.fullmatch(name))


def _describe(error: Any) -> str:
    flag = flag_of(".".join(str(part) for part in error["loc"]))
    if error["type"] == "missing":
        return f"{flag} is required"
    return f"{flag}: {error['msg']} (got {error['input']!r})"


def flag_of(name: str) -> str:
    """The flag that gives the setting `name`."""
    return "--" + _FLAG_NAMES.get(name, name).replace("_", "-")


_FLAG_NAMES = {"api_keys": "api_key", "adapter_roots": "adapter_root"}
"""Flags that are given once for each value."""
_ALL: tuple[type[PoolSettings], ...] = (ApiSettings, WorkerSettings, ControlSettings)
