"""Read-only views of adapters: their versions, usage, and the workers that load them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import sub

from shared.protocol.adapters import Adapter, decode_adapter
from shared.protocol.ids import AdapterVersion, WorkerId
from shared.store.adapters.candidates import SHARE_FIELDS, Share, decode_share
from shared.store.redis.connection import chunks, decode_hash
from shared.store.redis.pool_store import PoolStore

COUNTERS = "requests", "tokens", "failed", "answered", "answer_ms"
"""Counters in the entry of a version, in the order of its field `counts_before`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Usage of a version in a period."""

    requests: int
    tokens: int
    """Number of tokens in the prompts and answers of the requests."""
    failed: int
    """Number of requests that ended with an error."""
    mean_answer_s: float | None
    """Mean seconds from the claim of an answered request to its end; None without answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionView:
    """One adapter version and its usage."""

    adapter: Adapter
    usage: Usage
    """Usage since the version was registered."""
    compared_usage: Usage
    """Usage since the candidate of the name was set or, if the version has become current later,
    since then. Meaningful only for the current version and the candidate."""
    used_ms: int | None
    """Unix time in ms at which the version's latest request ended; None if none has ended."""
    waiting: int
    """Number of jobs in the version's queue."""
    loader: WorkerId | None
    """Worker that is loading the version; None if no worker is loading it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterView:
    """One adapter name: its current version, and its previous versions in rollback order."""

    current: VersionView
    previous: tuple[VersionView, ...]
    candidate: VersionView | None = None
    """Candidate: the version that is tried out along with the current version. None if there is
    none."""
    share: Share | None = None
    """Mode of the candidate and its share of requests; None without a candidate."""
    replicas: int = 0
    """Minimum number of workers that hold the current version."""


class AdapterViews(PoolStore):
    """Reads the registry of one pool, in two round trips for every `CHUNK` names."""

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
        """Return the versions that no name refers to. Each is kept until its last job has ended."""
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
            pipe.hmget(self._keys.adapter(name), ["version", *SHARE_FIELDS])
            pipe.lrange(self._keys.previous(name), 0, -1)
            pipe.hget(self._keys.pins, name)
        flat = await pipe.execute()
        rows = [
            (_version(current), [*map(_version, previous)], decode_share(share), int(replicas or 0))
            for (current, *share), previous, replicas in zip(
                flat[::3], flat[1::3], flat[2::3], strict=True
            )
        ]
        found = await self._versions(
            [
                version
                for current, previous, share, _ in rows
                if current
                for version in (current, *previous, *([share.version] if share else ()))
            ]
        )
        return [
            _adapter_view(current, previous, share, replicas, found)
            for current, previous, share, replicas in rows
            if current in found
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
            version: _version_view(fields, waiting, loader)
            for version, fields, waiting, loader in rows
            if fields
        }


def _version(raw: bytes | None) -> AdapterVersion:
    """Return the version in `raw`, or an empty string if there is none: an unregistered name."""
    return AdapterVersion((raw or b"").decode())


def _adapter_view(
    current: AdapterVersion,
    previous: Sequence[AdapterVersion],
    share: Share | None,
    replicas: int,
    found: Mapping[AdapterVersion, VersionView],
) -> AdapterView:
    candidate = found.get(share.version) if share else None
    return AdapterView(
        current=found[current],
        previous=tuple(found[version] for version in previous if version in found),
        candidate=candidate,
        share=share if candidate else None,
        replicas=replicas,
    )


def _version_view(fields: Mapping[bytes, bytes], waiting: int, loader: bytes | None) -> VersionView:
    used_ms = fields.get(b"used_ms")
    counts = [int(fields.get(counter.encode(), 0)) for counter in COUNTERS]
    before = [int(count) for count in fields.get(b"counts_before", b"").split()]
    return VersionView(
        adapter=decode_adapter(decode_hash(fields)),
        usage=_usage(counts),
        compared_usage=_usage(map(sub, counts, before)) if before else _usage(counts),
        used_ms=int(used_ms) if used_ms else None,
        waiting=waiting,
        loader=WorkerId(loader.decode()) if loader else None,
    )


def _usage(counts: Iterable[int]) -> Usage:
    """Return the usage from the values of `COUNTERS`."""
    requests, tokens, failed, answered, answer_ms = counts
    mean_answer_s = answer_ms / answered / 1000 if answered else None
    return Usage(requests=requests, tokens=tokens, failed=failed, mean_answer_s=mean_answer_s)
