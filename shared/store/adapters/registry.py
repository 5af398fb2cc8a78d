"""Registry of a pool: its base model, and the version that each adapter name refers to."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from shared.errors import ErrorCode, SettingsError, failed
from shared.protocol.adapters import (
    Adapter,
    AdapterState,
    BaseModel,
    decode_adapter,
    decode_base_model,
)
from shared.protocol.capabilities import encode_words
from shared.protocol.ids import AdapterVersion
from shared.protocol.tools import ToolForm
from shared.reasoning_form import ReasoningForm
from shared.store.adapters.audit_log import POOL, WORKER
from shared.store.adapters.candidates import (
    SHARE_FIELDS,
    Candidate,
    CandidateMode,
    decode_share,
)
from shared.store.adapters.refusals import already_loaded, conflict, not_kept, quarantine
from shared.store.redis.connection import chunks, decode_hash
from shared.store.redis.pool_store import PoolStore
from shared.store.redis.scripts import flat

RELEASED_PER_CALL = 32
"""Maximum number of versions that one call of `release_quarantine.lua` releases."""
KEPT_VERSIONS = 4
"""Number of previous versions that a name keeps by default."""


_AddMode = Literal["start", "load", "replace", "candidate"]
"""Reason for adding an adapter. `add_adapter.lua` describes the reasons and the outcomes."""


@dataclass(frozen=True, slots=True)
class Found:
    """Result of looking up a model name."""

    base: BaseModel | None
    """Base model of the pool; None before the first worker has started."""
    adapter: Adapter | None = None
    """Adapter version that the name refers to, if it takes new requests."""
    is_base: bool = False
    """Whether the name refers to the base model."""
    revision: str = "0"
    """Revision of the registry at the lookup, or an earlier one.

    The revision changes whenever a model that takes requests is changed or removed.
    """
    candidate: Candidate | None = None
    """Candidate of the adapter, if it takes requests. None if the lookup named an exact version."""

    def canary_for(self, key: str) -> "Found":
        """Return what was found for the canary, if it takes requests with `key`, else `self`."""
        return self._candidate_for(key, CandidateMode.CANARY) or self

    def shadow_for(self, key: str) -> "Found | None":
        """Return what was found for the shadow, if the shadow gets copies of requests with `key`.

        Otherwise, return None.
        """
        return self._candidate_for(key, CandidateMode.SHADOW)

    def _candidate_for(self, key: str, mode: CandidateMode) -> "Found | None":
        candidate = self.candidate
        if candidate is None or candidate.share.mode is not mode or not candidate.share.takes(key):
            return None
        return replace(self, adapter=candidate.adapter)

    @property
    def version(self) -> AdapterVersion | None:
        """Version that serves requests; None if there is no such model."""
        model = self.base if self.is_base else self.adapter
        return model.version if model else None

    @property
    def tool_form(self) -> ToolForm | None:
        """Form of the model's tool calls. An adapter's own chat template may change the form."""
        own = self.adapter.tool_form if self.adapter and not self.is_base else None
        return own or (self.base.tool_form if self.base else None)

    @property
    def reasoning(self) -> ReasoningForm | None:
        """Form of the reasoning in the model's answers."""
        model = self.base if self.is_base else self.adapter
        return model.reasoning if model else None


class Registry(PoolStore):
    """Base model, adapter names and versions of one pool.

    A name has a current version and a few previous versions. The entry of a version is kept as long
    as a name refers to the version, or a job of the version waits or runs.
    """

    async def set_base(self, base: BaseModel) -> str:
        """Set the pool's base model. If its version changes, all adapters are unregistered.

        Returns the registry's epoch. If the epoch is new, the registry has lost its adapters, and
        workers must register their adapters again.

        Raises:
            SettingsError: live workers of the pool serve another version.
        """
        args = base.version, uuid.uuid4().hex, *_fields(base)
        other = registry_epoch = b""
        while not (other or registry_epoch):  # each call unregisters some of the adapters
            other, registry_epoch = await self._scripts.run("set_base", *args)
        if other:
            raise SettingsError(
                f"pool {self._keys.pool} serves {other.decode()}, not {base.version}: "
                "stop its workers first, or set another --pool"
            )
        return str(registry_epoch.decode())

    async def base(self) -> BaseModel | None:
        """Return the pool's base model, or None before the first worker has started."""
        return _base(await self._redis.hgetall(self._keys.base))  # type: ignore[misc]

    async def add_adapter(self, adapter: Adapter) -> AdapterVersion | None:
        """Register an adapter that a worker was started with.

        Returns the version that the name refers to after the call, or None if a client has unloaded
        the name. This version differs from that of `adapter` if a client has set another one, or if
        a worker that started later has registered another one. A quarantined version stays
        quarantined.
        """
        _, version = await self._add("start", adapter, by=WORKER)
        return version

    async def load_adapter(
        self, adapter: Adapter, *, replace: bool, keep_versions: int = KEPT_VERSIONS, by: str = ""
    ) -> None:
        """Register an adapter for a client. New requests for the name use the adapter immediately.

        The name keeps at most `keep_versions` previous versions. `by` is the client, as the audit
        log shows it.

        Raises:
            JobFailed: the name is taken and `replace` is false, the version is quarantined, or its
                uploaded files have expired.
        """
        mode: _AddMode = "replace" if replace else "load"
        outcome, version = await self._add(mode, adapter, keep_versions, by=by)
        if outcome == "exists":
            raise already_loaded(adapter.name, version)
        _check_can_load(outcome, version)

    async def add_candidate(
        self,
        adapter: Adapter,
        *,
        keep_versions: int,
        by: str,
        mode: CandidateMode = CandidateMode.CANARY,
        percent: float | None = None,
    ) -> bool:
        """Register an adapter as the candidate of its name. Any other candidate is replaced.

        `percent` is its share of the requests, from 0 to 100. If it is None, a new candidate takes
        no requests until `Candidates.set` gives it a share, and the present candidate keeps its
        mode and share. `by` is the client, as the audit log shows it. Returns False if the name
        isn't registered.

        Raises:
            JobFailed: the version is current or quarantined, or its uploaded files have expired.
        """
        share = mode, "" if percent is None else f"{percent:g}"
        outcome, version = await self._add("candidate", adapter, keep_versions, by=by, share=share)
        if outcome == "exists":
            message = f"{version} is the current version of {adapter.name} already"
            raise conflict(f"{message}; load other weights")
        _check_can_load(outcome, version)
        return outcome != "unknown"

    async def unload_adapter(self, name: str, *, by: str = "") -> bool:
        """Stop accepting jobs for the name. Jobs that already wait or run end normally.

        The call may be repeated. Returns False if the name is unknown. An unloaded name stays known
        for at least an hour. `by` is the client, as the audit log shows it.
        """
        return bool(await self._scripts.run("unload_adapter", name, by) >= 0)

    async def roll_back_adapter(
        self, name: str, version: AdapterVersion | None = None, *, by: str = ""
    ) -> AdapterVersion | None:
        """Make the name refer to a previous version, and return that version.

        Previous versions form a list. If no `version` is given, the name gets the first of them,
        and the replaced version goes to the end of the list, so that repeated rollbacks go further
        back. If a `version` is given, the replaced version goes to the start of the list. If
        `version` is current, nothing changes. `by` is the client, as the audit log shows it.
        Returns None if the name isn't registered.

        Raises:
            JobFailed: there is no previous version, the name doesn't keep `version`, or the
                version is quarantined.
        """
        match await self._scripts.run("rollback_adapter", name, version or "", by):
            case [b"ok", reached]:
                return AdapterVersion(reached.decode())
            case [b"none"]:
                raise conflict(f"adapter {name} has no previous version")
            case [b"not_kept", *kept]:
                raise not_kept(name, version, kept)
            case [b"quarantined", reached]:
                raise conflict(quarantine(reached.decode()))
        return None

    async def release_adapter(self, name: str, *, by: str) -> AdapterVersion | None:
        """Let the quarantined current version of the name take jobs again, and return the version.

        The count of the version's dead jobs is kept. One more dead job therefore quarantines the
        version again, unless one of its jobs is answered first, which resets the count. Returns
        None if the name isn't registered. `by` is the author in the audit log.

        Raises:
            JobFailed: the version isn't quarantined.
        """
        adapter = await self.adapter(name)
        if adapter is None:
            return None
        if not await self._scripts.run("release_quarantine", 0, by, adapter.version):
            raise conflict(f"adapter {adapter.version} isn't quarantined")
        return adapter.version

    async def release_quarantined(self, *, after_ms: int) -> list[AdapterVersion]:
        """Release the versions that were quarantined at least `after_ms` ago, and return them.

        They take jobs again. The call may be repeated.
        """
        raw = await self._redis.zrange(self._keys.quarantined, 0, -1)
        released: list[bytes] = []
        for page in chunks(raw, RELEASED_PER_CALL):
            released += await self._scripts.run("release_quarantine", after_ms, POOL, *page)
        return [AdapterVersion(version.decode()) for version in released]

    async def forget_unused(self) -> list[AdapterVersion]:
        """Delete the entries of versions that no name and no job refers to. Return the versions."""
        return [AdapterVersion(raw.decode()) for raw in await self._scripts.run("forget_unused")]

    async def adapter(self, name: str) -> Adapter | None:
        """Return the current version of the name, or None if the name isn't registered."""
        version = await self._current_version(name)
        return await self.adapter_by_version(AdapterVersion(version.decode())) if version else None

    async def adapter_by_version(self, version: AdapterVersion) -> Adapter | None:
        """Return a version, even if it isn't current. Return None if its entry was deleted."""
        fields = await self._redis.hgetall(self._keys.version(version))  # type: ignore[misc]
        return decode_adapter(decode_hash(fields)) if fields else None

    async def adapters(self) -> list[Adapter]:
        """Return the current version of every registered name, sorted by name."""
        names = await self._redis.smembers(self._keys.adapters)  # type: ignore[misc]
        found: list[Adapter] = []
        for some in chunks(sorted(raw.decode() for raw in names)):
            found += await self._current(some)
        return found

    async def some_names(self, most: int) -> list[str]:
        """Return the names of the base model and of at most `most` adapters, in any order."""
        base = await self.base()
        names = await self._redis.srandmember(self._keys.adapters, most)  # type: ignore[misc]
        return [*([base.name] if base else []), *(raw.decode() for raw in names)]

    async def forgotten(self, versions: list[AdapterVersion]) -> list[AdapterVersion]:
        """Return the versions in `versions` that no longer have entries."""
        gone: list[AdapterVersion] = []
        for some in chunks(versions):
            pipe = self._redis.pipeline(transaction=False)
            for version in some:
                pipe.exists(self._keys.version(version))
            found = await pipe.execute()
            gone += [version for version, is_there in zip(some, found, strict=True) if not is_there]
        return gone

    async def resolve(self, model: str) -> AdapterVersion | None:
        """Return the version that serves requests for `model`, or None if there is no such model.

        Raises:
            JobFailed: the adapter is quarantined.
        """
        return (await self.find(model)).version

    async def find(self, model: str) -> Found:
        """Return the base model, and the version that serves requests for `model`.

        Requests refer to an adapter by `name`, `base:name` or `name@digest12`. The last form may
        refer to a previous version.

        Raises:
            JobFailed: the adapter is quarantined.
        """
        base_name, colon, name = model.rpartition(":")
        pipe = self._redis.pipeline(transaction=False)
        # The revision is read first, so that the other values can't be older than it.
        pipe.hget(self._keys.counters, "registry")
        pipe.hgetall(self._keys.base)
        pipe.hmget(self._keys.adapter(name), ["version", *SHARE_FIELDS])
        raw_revision, fields, (current, *raw_share) = await pipe.execute()
        base, revision = _base(fields), (raw_revision or b"0").decode()
        if base and model in (base.name, base.version):
            return Found(base, is_base=True, revision=revision)
        if base and colon and base_name != base.name:
            return Found(base, revision=revision)
        version = AdapterVersion(name if "@" in name else (current or b"").decode())
        adapter = await self._served(version)
        if current and not adapter and await self._current_version(name) != current:
            return await self.find(model)  # the name got another version between the reads
        candidate = await self._candidate(raw_share) if adapter and "@" not in name else None
        return Found(base, adapter, revision=revision, candidate=candidate)

    async def _candidate(self, raw_share: Sequence[bytes | None]) -> Candidate | None:
        """Return the candidate in the values of `SHARE_FIELDS` if it takes requests, else None."""
        share = decode_share(raw_share)
        if share is None or not share.percent:
            return None
        adapter = await self.adapter_by_version(share.version)
        is_ready = adapter is not None and adapter.state is AdapterState.READY
        return Candidate(adapter=adapter, share=share) if adapter and is_ready else None

    async def _current_version(self, name: str) -> bytes | None:
        found: bytes | None = await self._redis.hget(self._keys.adapter(name), "version")  # type: ignore[misc]
        return found

    async def _served(self, version: AdapterVersion) -> Adapter | None:
        """Return the version if it takes new requests, else None.

        Raises:
            JobFailed: the version is quarantined.
        """
        adapter = await self.adapter_by_version(version) if version else None
        if adapter and adapter.state is AdapterState.QUARANTINED:
            message = f"{quarantine(version)}; register other weights under its name"
            raise failed(ErrorCode.ADAPTER_UNAVAILABLE, message, "model")
        return adapter if adapter and adapter.state is AdapterState.READY else None

    async def _current(self, names: Sequence[str]) -> list[Adapter]:
        """Return the current versions of the registered names among `names`."""
        pipe = self._redis.pipeline(transaction=False)
        for name in names:
            pipe.hget(self._keys.adapter(name), "version")
        for version in [raw.decode() for raw in await pipe.execute() if raw]:
            pipe.hgetall(self._keys.version(AdapterVersion(version)))
        return [decode_adapter(decode_hash(reply)) for reply in await pipe.execute() if reply]

    async def _add(
        self,
        mode: _AddMode,
        adapter: Adapter,
        keep_versions: int | None = None,
        *,
        by: str,
        share: tuple[str, str] = ("", ""),
    ) -> tuple[str, AdapterVersion | None]:
        keep = "" if keep_versions is None else keep_versions
        args = mode, adapter.name, adapter.version, adapter.created_s, keep, adapter.source, by
        outcome, raw = await self._scripts.run("add_adapter", *args, *share, *_fields(adapter))
        version = AdapterVersion(raw.decode()) if raw else None
        return outcome.decode(), version


def _check_can_load(outcome: str, version: AdapterVersion | None) -> None:
    if outcome == "quarantined":
        raise conflict(f"{quarantine(version)}; load other weights")
    if outcome == "expired":
        message = "reading the adapter took too long, and its files have expired; send it again"
        raise failed(ErrorCode.UNAVAILABLE, message)


def _fields(record: BaseModel | Adapter) -> Iterator[Any]:
    """Return the fields of a record and their values for a Redis hash.

    None becomes an empty text, and booleans become 0 and 1.
    """
    fields = asdict(record)
    if isinstance(record, Adapter):
        fields["kinds"] = encode_words(record.kinds)
    if isinstance(record, BaseModel):
        fields["takes_images"] = int(record.takes_images)
    return flat((k, "" if value is None else value) for k, value in fields.items())


def _base(raw: Mapping[bytes, bytes]) -> BaseModel | None:
    return decode_base_model(decode_hash(raw)) if raw else None
