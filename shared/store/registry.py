"""Which base model a pool serves, and which adapters by which names."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, cast

from shared.errors import ErrorCode, JobError, JobFailed, SettingsError
from shared.protocol.ids import AdapterVersion
from shared.protocol.tools import ToolForm
from shared.store.chunks import chunks
from shared.store.connection import Redis, redis_errors
from shared.store.keys import Keys
from shared.store.scripts import Scripts

State = Literal["ready", "quarantined", "retired", "unloaded"]


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
    max_token_bytes: int = 0
    """The most bytes of a prompt that one token can stand for; 0: that isn't known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One version of an adapter: a name, and the weights behind it."""

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
    state: State = "ready"
    """Quarantined: its jobs killed their workers, so it takes no more. Retired and unloaded ones
    only end the jobs that they have; retired means that the name has gone through others since."""


class Registry:
    """Names and versions of one pool.

    A name has a current version and some previous ones. Each has an entry of its own, which stays
    for as long as the name refers to it, or a job that waits or runs.
    """

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._scripts = Scripts(redis, keys)

    async def set_base(self, base: BaseModel) -> str:
        """Say what the pool serves; another version than before unregisters all adapters.

        Returns the registry's epoch: another one than last time means that it knows no adapter of
        that time any more.

        Raises:
            SettingsError: live workers of the pool serve another version.
        """
        fields = {**asdict(base), "tool_form": base.tool_form or ""}
        args = base.version, uuid.uuid4().hex, *_pairs(fields)
        other = epoch = b""
        while not (other or epoch):  # of many adapters that it forgets, it takes some in each call
            other, epoch = await self._scripts.run("set_base", *args)
        if other:
            raise SettingsError(
                f"pool {self._keys.pool} serves {other.decode()}, not {base.version}: "
                "stop its workers first, or set another --pool"
            )
        return str(epoch.decode())

    async def base(self) -> BaseModel | None:
        """What the pool serves; None before its first worker."""
        with redis_errors():
            return _base(await self._redis.hgetall(self._keys.base))  # type: ignore[misc]

    async def add_adapter(self, adapter: Adapter) -> AdapterVersion | None:
        """Register what a worker was started with; returns the version that the name has then.

        That is another one, or none, if a client decided so knowing this version, or a younger
        worker was started with another. The same version stays quarantined.
        """
        _, version = await self._add("start", adapter)
        return AdapterVersion(version) if version else None

    async def load_adapter(self, adapter: Adapter, *, replace: bool) -> None:
        """Register an adapter for a client, at once and for all new requests.

        Raises:
            JobFailed: the name is taken and not to be replaced, or the version is quarantined.
        """
        outcome, version = await self._add("replace" if replace else "load", adapter)
        if outcome == "exists":
            raise JobFailed(already_loaded(adapter.name, version))
        if outcome == "quarantined":
            raise JobFailed(_conflict(f"{_quarantine(version)}; load other weights"))

    async def unload_adapter(self, name: str) -> bool:
        """Take no new jobs for the name; those that wait or run end normally. May be repeated.

        Returns whether the name is known, or was within the last hour.
        """
        return bool(await self._scripts.run("unload_adapter", name) >= 0)

    async def roll_back_adapter(self, name: str) -> AdapterVersion | None:
        """Let the name stand for its previous version again; None: there is no such adapter.

        The one that it had becomes the last that further calls reach.

        Raises:
            JobFailed: there is no previous version, or it is quarantined.
        """
        match await self._scripts.run("rollback_adapter", name):
            case [b"ok", version]:
                return AdapterVersion(version.decode())
            case [b"none"]:
                raise JobFailed(_conflict(f"adapter {name} has no previous version"))
            case [b"quarantined", version]:
                raise JobFailed(_conflict(_quarantine(version.decode())))
        return None

    async def sweep(self) -> list[AdapterVersion]:
        """Forget versions that no name refers to and no job waits or runs for; returns them.

        Anybody may call it, about once a second; the workers are told.
        """
        return [AdapterVersion(raw.decode()) for raw in await self._scripts.run("sweep")]

    async def adapter(self, name: str) -> Adapter | None:
        """The adapter that has this name now."""
        with redis_errors():
            version = await self._redis.hget(self._keys.adapter(name), "version")  # type: ignore[misc]
        return await self.adapter_by_version(AdapterVersion(version.decode())) if version else None

    async def adapter_by_version(self, version: AdapterVersion) -> Adapter | None:
        """The adapter of this version, whatever its name stands for now; None: it is forgotten."""
        with redis_errors():
            fields = await self._redis.hgetall(self._keys.version(version))  # type: ignore[misc]
        return read_adapter(fields) if fields else None

    async def adapters(self) -> list[Adapter]:
        """All adapters that have a name now, by name."""
        with redis_errors():
            names = await self._redis.smembers(self._keys.adapters)  # type: ignore[misc]
            found: list[Adapter] = []
            for some in chunks(sorted(raw.decode() for raw in names)):
                found += await self._current(some)
        return found

    async def forgotten(self, versions: list[AdapterVersion]) -> list[AdapterVersion]:
        """Those of `versions` that have no entry."""
        gone: list[AdapterVersion] = []
        for some in chunks(versions):
            with redis_errors():
                pipe = self._redis.pipeline(transaction=False)
                for version in some:
                    pipe.exists(self._keys.version(version))
                found = await pipe.execute()
            gone += [version for version, is_there in zip(some, found, strict=True) if not is_there]
        return gone

    async def resolve(self, model: str) -> AdapterVersion | None:
        """The version that a request for `model` runs; None when nothing is called so.

        Raises:
            JobFailed: the adapter is quarantined.
        """
        _, version = await self.find(model)
        return version

    async def find(self, model: str) -> tuple[BaseModel | None, AdapterVersion | None]:
        """What the pool serves, and the version that a request for `model` runs.

        An adapter is called `name`, `base:name` or `name@version`, which may be a previous one.

        Raises:
            JobFailed: the adapter is quarantined.
        """
        base_name, colon, name = model.rpartition(":")
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            pipe.hgetall(self._keys.base)
            pipe.hget(self._keys.adapter(name), "version")
            fields, current = await pipe.execute()
        base = _base(fields)
        if base and model in (base.name, base.version):
            return base, base.version
        if base and colon and base_name != base.name:
            return base, None
        version = AdapterVersion(name if "@" in name else (current or b"").decode())
        return base, await self._served(version)

    async def _served(self, version: AdapterVersion) -> AdapterVersion | None:
        """The version itself if it takes new requests."""
        adapter = await self.adapter_by_version(version) if version else None
        if adapter and adapter.state == "quarantined":
            message = f"{_quarantine(version)}; register other weights under its name"
            raise JobFailed(
                JobError(code=ErrorCode.ADAPTER_UNAVAILABLE, message=message, param="model")
            )
        return version if adapter and adapter.state == "ready" else None

    async def _current(self, names: Sequence[str]) -> list[Adapter]:
        """The adapters that have these names now."""
        pipe = self._redis.pipeline(transaction=False)
        for name in names:
            pipe.hget(self._keys.adapter(name), "version")
        for version in [raw.decode() for raw in await pipe.execute() if raw]:
            pipe.hgetall(self._keys.version(AdapterVersion(version)))
        return [read_adapter(reply) for reply in await pipe.execute() if reply]

    async def _add(self, how: str, adapter: Adapter) -> tuple[str, str]:
        head = how, adapter.name, adapter.version, adapter.created_s
        outcome, version = await self._scripts.run("add_adapter", *head, *_pairs(asdict(adapter)))
        return outcome.decode(), version.decode()


def already_loaded(name: str, version: str) -> JobError:
    """Why a name can't be loaded a second time."""
    return JobError(
        code=ErrorCode.ADAPTER_EXISTS,
        message=f"adapter {name} is loaded already, as {version}; "
        'send "load_inplace": true to replace it',
        param="lora_name",
    )


def _conflict(message: str) -> JobError:
    return JobError(code=ErrorCode.ADAPTER_CONFLICT, message=message)


def _quarantine(version: str) -> str:
    return f"adapter {version} is quarantined: several of its jobs in a row killed their workers"


def _pairs(fields: Mapping[str, str | int]) -> list[str | int]:
    return [word for pair in fields.items() for word in pair]


def read_adapter(raw: Mapping[bytes, bytes]) -> Adapter:
    """The adapter in the fields of a version's entry."""
    fields = _decoded(raw)
    return Adapter(
        name=fields["name"],
        version=AdapterVersion(fields["version"]),
        digest=fields["digest"],
        weights_digest=fields["weights_digest"],
        source=fields["source"],
        rank=int(fields["rank"]),
        num_bytes=int(fields["num_bytes"]),
        created_s=int(fields["created_s"]),
        state=cast(State, fields["state"]),
    )


def _base(raw: Mapping[bytes, bytes]) -> BaseModel | None:
    fields = _decoded(raw)
    if not fields:
        return None
    return BaseModel(
        name=fields["name"],
        version=AdapterVersion(fields["version"]),
        max_model_len=int(fields["max_model_len"]),
        source=fields["source"],
        created_s=int(fields["created_s"]),
        tool_form=ToolForm(fields["tool_form"]) if fields.get("tool_form") else None,
        max_token_bytes=int(fields.get("max_token_bytes", 0)),  # older workers don't write it
    )


def _decoded(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in fields.items()}
