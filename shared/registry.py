"""Which base model a pool serves, and which adapters by which names."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from shared.connection import Redis, redis_errors
from shared.errors import ErrorCode, JobError, JobFailed, SettingsError
from shared.ids import AdapterVersion
from shared.keys import Keys
from shared.scripts import Scripts
from shared.tools import ToolForm


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModel:
    """The model that a pool serves."""

    name: str
    version: AdapterVersion
    max_model_len: int
    source: str
    created_s: int
    tool_form: ToolForm | None = None
    """How it writes tool calls; None: its chat template has no place for tools."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A registered adapter name and the weights behind it."""

    name: str
    version: AdapterVersion
    digest: str
    """Of the version: all of its hex digits."""
    weights_digest: str
    source: str
    """Folder or hub id."""
    rank: int
    """The largest rank of any of its modules."""
    num_bytes: int
    created_s: int
    state: Literal["ready", "quarantined"] = "ready"
    """Quarantined: its jobs killed their workers, so it takes no more."""


class Registry:
    """Names and versions of one pool."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._scripts = Scripts(redis, keys)

    async def set_base(self, base: BaseModel) -> None:
        """Say what the pool serves; another version than before unregisters all adapters.

        Raises:
            SettingsError: live workers of the pool serve another version.
        """
        fields = {**asdict(base), "tool_form": base.tool_form or ""}
        other = await self._scripts.run("set_base", base.version, *_pairs(fields))
        if other:
            raise SettingsError(
                f"pool {self._keys.pool} serves {other.decode()}, not {base.version}: "
                "stop its workers first, or set another --pool"
            )

    async def base(self) -> BaseModel | None:
        """What the pool serves; None before its first worker."""
        fields = await self._read(self._keys.base)
        if not fields:
            return None
        return BaseModel(
            name=fields["name"],
            version=AdapterVersion(fields["version"]),
            max_model_len=int(fields["max_model_len"]),
            source=fields["source"],
            created_s=int(fields["created_s"]),
            tool_form=ToolForm(fields["tool_form"]) if fields.get("tool_form") else None,
        )

    async def add_adapter(self, adapter: Adapter) -> None:
        """Register a name, or flip it to new weights, unless it has an entry created later.

        The same version stays quarantined.
        """
        await self._scripts.run(
            "add_adapter",
            *(adapter.name, adapter.version, adapter.created_s),
            *_pairs(asdict(adapter)),
        )

    async def adapter(self, name: str) -> Adapter | None:
        """The adapter of this name."""
        fields = await self._read(self._keys.adapter(name))
        return _adapter(fields) if fields else None

    async def adapter_by_version(self, version: AdapterVersion) -> Adapter | None:
        """The adapter of this version; None when its name is unknown or has other weights now."""
        adapter = await self.adapter(version.rpartition("@")[0])
        return adapter if adapter and adapter.version == version else None

    async def adapters(self) -> list[Adapter]:
        """All adapters, by name."""
        with redis_errors():
            names = await self._redis.smembers(self._keys.adapters)  # type: ignore[misc]
            pipe = self._redis.pipeline(transaction=False)
            for name in sorted(raw.decode() for raw in names):
                pipe.hgetall(self._keys.adapter(name))
            replies = await pipe.execute()
        return [_adapter(_decoded(reply)) for reply in replies if reply]

    async def resolve(self, model: str, *, base: BaseModel | None = None) -> AdapterVersion | None:
        """The version that a request for `model` runs; None when there is no such name.

        Who has just read the base gives it, which saves a round trip.

        Raises:
            JobFailed: the adapter is quarantined.
        """
        base = base or await self.base()
        if base and base.name == model:
            return base.version
        adapter = await self.adapter(model)
        if adapter and adapter.state == "quarantined":
            raise JobFailed(_quarantined(adapter))
        return adapter.version if adapter else None

    async def _read(self, key: str) -> dict[str, str]:
        with redis_errors():
            return _decoded(await self._redis.hgetall(key))  # type: ignore[misc]


def _pairs(fields: Mapping[str, str | int]) -> list[str | int]:
    return [word for pair in fields.items() for word in pair]


def _decoded(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in fields.items()}


def _adapter(fields: Mapping[str, str]) -> Adapter:
    return Adapter(
        name=fields["name"],
        version=AdapterVersion(fields["version"]),
        digest=fields["digest"],
        weights_digest=fields["weights_digest"],
        source=fields["source"],
        rank=int(fields["rank"]),
        num_bytes=int(fields["num_bytes"]),
        created_s=int(fields["created_s"]),
        state="quarantined" if fields["state"] == "quarantined" else "ready",
    )


def _quarantined(adapter: Adapter) -> JobError:
    return JobError(
        code=ErrorCode.ADAPTER_UNAVAILABLE,
        message=f"adapter {adapter.name} is quarantined: several of its jobs in a row killed "
        "their workers; register other weights under this name",
        param="model",
    )
