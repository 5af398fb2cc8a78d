"""Read-only views of adapters for operators: versions, usage, and workers that are loading them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shared.protocol.adapters import Adapter, decode_adapter
from shared.protocol.ids import AdapterVersion, WorkerId
from shared.store.connection import Redis, chunks, decode_hash
from shared.store.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionView:
    """One adapter version and its usage since it was registered."""

    adapter: Adapter
    requests: int
    tokens: int
    """Number of tokens in the prompts and answers of the version's requests."""
    used_ms: int | None
    """Unix time in ms at which the version's last request ended; None before the first one."""
    waiting: int
    """Number of jobs in the version's queue."""
    loader: WorkerId | None
    """Worker that is loading the version; None if no worker is loading it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterView:
    """One adapter name: its current version, and its previous versions in rollback order."""

    current: VersionView
    previous: tuple[VersionView, ...]


class AdapterViews:
    """Reads the registry of one pool, with two round trips for every `CHUNK` adapters."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def adapters(self) -> list[AdapterView]:
        """Return the views of all registered names, sorted by name."""
        raw = await self._redis.smembers(self._keys.adapters)  # type: ignore[misc]
        views: list[AdapterView] = []
        for names in chunks(sorted(name.decode() for name in raw)):
            views += await self._views(names)
        return views

    async def adapter(self, name: str) -> AdapterView | None:
        """Return the view of one name, or None if the name isn't registered."""
        return next(iter(await self._views([name])), None)

    async def retired(self) -> list[VersionView]:
        """Return the versions that no name refers to. A version is kept until its last job ends."""
        raw = await self._redis.zrange(self._keys.retired, 0, -1)
        versions = [AdapterVersion(version.decode()) for version in raw]
        views: list[VersionView] = []
        for some in chunks(versions):
            found = await self._versions(some)
            views += [found[version] for version in some if version in found]
        return views

    async def _views(self, names: Sequence[str]) -> list[AdapterView]:
        pipe = self._redis.pipeline(transaction=False)
        for name in names:
            pipe.hget(self._keys.adapter(name), "version")
            pipe.lrange(self._keys.previous(name), 0, -1)
        flat = await pipe.execute()
        listed = [
            [AdapterVersion(raw.decode()) for raw in (current, *previous)]
            for current, previous in zip(flat[::2], flat[1::2], strict=True)
            if current
        ]
        found = await self._versions([version for versions in listed for version in versions])
        return [
            AdapterView(
                current=found[versions[0]],
                previous=tuple(found[version] for version in versions[1:] if version in found),
            )
            for versions in listed
            if versions[0] in found
        ]

    async def _versions(
        self, versions: Sequence[AdapterVersion]
    ) -> Mapping[AdapterVersion, VersionView]:
        pipe = self._redis.pipeline(transaction=False)
        for version in versions:
            pipe.hgetall(self._keys.version(version))
            pipe.zcard(self._keys.queue(version))
            pipe.get(self._keys.loading(version))
        flat = await pipe.execute()
        rows = zip(versions, flat[::3], flat[1::3], flat[2::3], strict=True)
        return {
            version: _view(fields, waiting, loader)
            for version, fields, waiting, loader in rows
            if fields
        }


def _view(fields: Mapping[bytes, bytes], waiting: int, loader: bytes | None) -> VersionView:
    used_ms = fields.get(b"used_ms")
    return VersionView(
        adapter=decode_adapter(decode_hash(fields)),
        requests=int(fields.get(b"requests", 0)),
        tokens=int(fields.get(b"tokens", 0)),
        used_ms=int(used_ms) if used_ms else None,
        waiting=waiting,
        loader=WorkerId(loader.decode()) if loader else None,
    )
