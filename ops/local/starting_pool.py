"""The registry and the workers of a pool while `lorikeet up` starts it.

The pool has the adapters in its settings, and those that the registry kept from earlier starts.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from shared.errors import ProtocolMismatch, RedisUnavailable
from shared.protocol.adapters import Adapter, AdapterState, decode_adapter
from shared.protocol.ids import AdapterVersion, WorkerId
from shared.store.adapters.audit_log import OPERATOR
from shared.store.adapters.registry import Registry
from shared.store.redis.connection import Redis, chunks, connect, decode_hash
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews
from shared.store.views.starts import StartStep, WorkerStarts


@dataclass(frozen=True, slots=True, kw_only=True)
class AtStart:
    """An adapter name from workers' settings: its version there, and the version it has now."""

    name: str
    given: AdapterVersion
    """Version in the settings of the worker that registered the name last."""
    served: Adapter | None
    """Version that the name refers to; None if a client has unloaded the name."""
    is_by_client: bool
    """Whether a client has made the name refer to this version, or has unloaded the name."""


class StartingPool:
    """A pool whose processes `lorikeet up` starts.

    `begin`, `has_worker`, `start_step` and `names` raise `RedisUnavailable` if Redis can't be
    reached.
    """

    def __init__(self, redis: Redis, keys: Keys, adapters: Mapping[str, str]) -> None:
        self._redis = redis
        self._keys = keys
        self._adapters = adapters
        self._views = PoolViews(redis, keys)
        self._registry = Registry(redis, keys)
        self._starts = WorkerStarts(redis, keys)
        self._earlier: set[WorkerId] = set()

    async def begin(self) -> None:
        """Prepare the pool for its start. None of its processes may run."""
        self._earlier = {view.id for view in await self._views.workers()}
        await begin_start(self._redis, self._keys, self._adapters.keys())

    async def has_worker(self) -> bool:
        """Return whether a worker is alive. Leases of an earlier run are ignored."""
        workers = await self._views.workers()
        return any(view.lease_left_ms > 0 and view.id not in self._earlier for view in workers)

    async def start_step(self) -> StartStep | None:
        """Return the latest step that a starting worker has reported, or None if none has."""
        return await self._starts.latest()

    async def names(self) -> list[str]:
        """Return the names of the base model and all adapters; empty until a worker has joined."""
        base = await self._registry.base()
        adapters = await self._registry.adapters() if base else []
        return [base.name, *(adapter.name for adapter in adapters)] if base else []

    async def never_started(self, pid: int) -> bool:
        """Return whether process `pid` has ended before it served anything.

        The result is false for a worker that had joined the pool, because a job may have ended it.
        It is also false if this can't be determined: Redis is away, which would stop any process
        from starting, or the record of a worker of another release can't be decoded.
        """
        try:
            workers = await self._views.workers()
        except (RedisUnavailable, ProtocolMismatch):
            return False
        # The ids of workers have the form HOST:PID:RANDOM.
        return not any(view.id.rsplit(":", 2)[1:2] == [str(pid)] for view in workers)

    async def leave_out(self, names: Iterable[str]) -> set[str]:
        """Unload the adapters that workers have left out, so that no old version is served.

        Versions that clients have set stay. Nothing happens if Redis can't be reached.

        Returns:
            The names that were unloaded.
        """
        with suppress(RedisUnavailable):
            return await unload_left_out(self._redis, self._keys, names)
        return set()

    async def notes(self) -> list[str]:
        """Return a line for each adapter that isn't served as the settings say."""
        with suppress(RedisUnavailable):
            found = await adapters_at_start(self._redis, self._keys, self._adapters)
            return [line for at_start in found if (line := _note(at_start, self._adapters))]
        return []


@asynccontextmanager
async def starting_pool(
    redis_url: str, pool: str, adapters: Mapping[str, str]
) -> AsyncIterator[StartingPool]:
    """Provide the starting pool. `adapters` maps names to sources, as in the settings."""
    async with connect(redis_url) as redis:
        yield StartingPool(redis, Keys(pool), adapters)


async def begin_start(redis: Redis, keys: Keys, names: Collection[str]) -> None:
    """Prepare the registry for a start of all workers with the adapters `names`.

    No process of the pool may run. Names that clients have unloaded are forgotten, so that workers
    can register the names again. Names that were only in the settings of an earlier start are
    unloaded, unless a client has set them since.
    """
    registry = Registry(redis, keys)
    earlier = [raw.decode() for raw in await redis.smembers(keys.adapters)]  # type: ignore[misc]
    for some in chunks(sorted({*names, *earlier})):
        pipe = redis.pipeline(transaction=False)
        for name in some:
            pipe.hmget(keys.adapter(name), ["version", "by"])
        for name, (version, by) in zip(some, await pipe.execute(), strict=True):
            if name in names and version == b"":
                await redis.delete(keys.adapter(name), keys.previous(name))
            elif name not in names:
                # Without this field, the entry of the name expires once the name is unloaded.
                await redis.hdel(keys.adapter(name), "at_start")  # type: ignore[misc]
                if by == b"start":
                    await registry.unload_adapter(name, by=OPERATOR)


async def unload_left_out(redis: Redis, keys: Keys, names: Iterable[str]) -> set[str]:
    """Unload those of `names` whose version was set at a start, not by a client. Return them."""
    registry = Registry(redis, keys)
    unloaded = set()
    for name in names:
        if await redis.hget(keys.adapter(name), "by") == b"start":  # type: ignore[misc]
            await redis.hdel(keys.adapter(name), "at_start")  # type: ignore[misc]
            await registry.unload_adapter(name, by=OPERATOR)
            unloaded.add(name)
    return unloaded


async def adapters_at_start(redis: Redis, keys: Keys, names: Iterable[str]) -> list[AtStart]:
    """Return the versions of those `names` that workers registered from their settings."""
    found = []
    for some in chunks(list(names)):
        pipe = redis.pipeline(transaction=False)
        for name in some:
            pipe.hmget(keys.adapter(name), ["at_start", "version", "by"])
        entries = await pipe.execute()
        for _, version, _ in entries:
            pipe.hgetall(keys.version(AdapterVersion((version or b"").decode())))
        versions = await pipe.execute()
        found += [
            AtStart(
                name=name,
                given=AdapterVersion(given.decode()),
                served=decode_adapter(decode_hash(fields)) if fields else None,
                is_by_client=by == b"client",
            )
            for name, (given, _, by), fields in zip(some, entries, versions, strict=True)
            if given
        ]
    return found


def _note(at_start: AtStart, sources: Mapping[str, str]) -> str | None:
    """Return a line that says how serving differs from the settings; None if it doesn't."""
    name, served = at_start.name, at_start.served
    load = f"lorikeet adapters load {name} {sources[name]}"
    if served is None:
        return f"{name} isn't served: a client has unloaded it. To load it again: {load}"
    if served.state is AdapterState.QUARANTINED:
        return (
            f"{name} isn't served: {served.version} is quarantined, because several of its jobs in "
            f"a row killed their workers. To release it: lorikeet adapters release {name}"
        )
    if served.version == at_start.given:
        return None
    setter = "a client" if at_start.is_by_client else "a worker that started later"
    return (
        f"{name} is served as {served.version}, which {setter} has set, instead of "
        f"{at_start.given} in --adapters. To serve that one: {load} --replace"
    )
