"""Current activity of the versions of a pool: their jobs, their usage, and their loaders."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from shared.protocol.ids import AdapterVersion, WorkerId, name_of
from shared.store.adapters.candidates import SHARE_FIELDS, Share, decode_share
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.redis.pool_store import PoolStore
from shared.store.views.pool_views import PoolViews

MAX_VERSIONS = 500
"""Maximum number of versions in one `Activity`. It bounds the time of a read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionActivity:
    """Current activity of one version."""

    version: AdapterVersion
    is_current: bool
    """Whether new requests for the version's name use it."""
    is_base: bool
    is_paused: bool
    """Whether the jobs of the adapter wait until it is resumed."""
    waiting: int
    running: int
    next_waited_ms: int | None
    """Milliseconds that the first job in the queue has waited; None if no job waits."""
    requests: int
    tokens: int
    """Number of tokens in the prompts and answers of the version's requests."""
    loader: WorkerId | None
    """Worker that is loading the version; None if no worker is loading it."""
    share: Share | None = None
    """Mode and share of a candidate; None if the version isn't a candidate."""

    @property
    def name(self) -> str:
        """Name of the adapter."""
        return name_of(self.version)


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """Versions of a pool, sorted by name; the base model comes first."""

    versions: Sequence[VersionActivity]
    """Versions with jobs, current versions and candidates. If there are more than `MAX_VERSIONS`,
    versions without jobs are left out first, beginning with those whose names sort last."""
    num_adapters: int
    """Number of registered names."""


class ActivityView(PoolStore):
    """Reads the activity of one pool's versions, in a few round trips."""

    def __init__(self, redis: Redis, keys: Keys, views: PoolViews) -> None:
        super().__init__(redis, keys)
        self._views = views
        self._names: Sequence[str] = ()
        """Registered names, sorted."""
        self._names_key: Sequence[Any] = ()
        """Revision of the registry, and number of names, at the time when `_names` was read."""

    async def read(
        self, base: AdapterVersion | None, active: Collection[AdapterVersion]
    ) -> Activity:
        """Return the activity of up to `MAX_VERSIONS` versions, including the base model.

        `base` is the version of the base model. The other versions are those in `active`, those
        with waiting jobs, and the current version and the candidate of each registered adapter.
        """
        backlogs = {backlog.version: backlog for backlog in await self._views.backlogs()}
        registered = await self._registered()
        raw = await self._redis.hkeys(self._keys.paused_adapters)  # type: ignore[misc]
        paused = {name.decode() for name in raw}
        busy = [each for each in dict.fromkeys((*backlogs, *active)) if each != base][:MAX_VERSIONS]
        names = dict.fromkeys((*(name_of(version) for version in busy), *registered))
        current, shares = await self._served(islice(names, MAX_VERSIONS))
        chosen = dict.fromkeys((*([base] if base else []), *busy, *shares, *current.values()))
        versions = sorted(islice(chosen, MAX_VERSIONS), key=lambda each: (each != base, each))
        return Activity(
            num_adapters=len(registered),
            versions=[
                VersionActivity(
                    version=version,
                    is_base=version == base,
                    is_paused=name_of(version) in paused,
                    is_current=version == base or current.get(name_of(version)) == version,
                    waiting=backlog.waiting if (backlog := backlogs.get(version)) else 0,
                    next_waited_ms=backlog.next_waited_ms if backlog else None,
                    running=running,
                    requests=int(requests or 0),
                    tokens=int(tokens or 0),
                    loader=WorkerId(loader.decode()) if loader else None,
                    share=shares.get(version),
                )
                for version, running, (requests, tokens), loader in await self._read(versions, base)
            ],
        )

    async def _registered(self) -> Sequence[str]:
        """Return all registered names, sorted. They are read again only after a change."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.hget(self._keys.counters, "registry")
        pipe.scard(self._keys.adapters)
        names_key = await pipe.execute()
        if names_key != self._names_key:
            raw = await self._redis.smembers(self._keys.adapters)  # type: ignore[misc]
            self._names = sorted(name.decode() for name in raw)
            self._names_key = names_key
        return self._names

    async def _served(
        self, names: Iterable[str]
    ) -> tuple[Mapping[str, AdapterVersion], Mapping[AdapterVersion, Share]]:
        """Return the current version of each registered name, and the share of each candidate."""
        listed = list(names)
        pipe = self._redis.pipeline(transaction=False)
        for name in listed:
            pipe.hmget(self._keys.adapter(name), ["version", *SHARE_FIELDS])
        current: dict[str, AdapterVersion] = {}
        shares: dict[AdapterVersion, Share] = {}
        for name, (version, *raw_share) in zip(listed, await pipe.execute(), strict=True):
            if version:
                current[name] = AdapterVersion(version.decode())
            if share := decode_share(raw_share):
                shares[share.version] = share
        return current, shares

    async def _read(
        self, versions: Sequence[AdapterVersion], base: AdapterVersion | None
    ) -> Iterable[tuple[AdapterVersion, int, Sequence[bytes | None], bytes | None]]:
        """Return (version, number of running jobs, [requests, tokens], loader) for each version."""
        pipe = self._redis.pipeline(transaction=False)
        for version in versions:
            entry = self._keys.base if version == base else self._keys.version(version)
            pipe.scard(self._keys.running(version))
            pipe.hmget(entry, ["requests", "tokens"])
            pipe.get(self._keys.loading(version))
        flat = await pipe.execute()
        return zip(versions, flat[::3], flat[1::3], flat[2::3], strict=True)
