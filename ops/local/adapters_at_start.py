"""Start of a whole pool: the adapters in its settings, and those that the registry kept."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from shared.protocol.adapters import Adapter, decode_adapter
from shared.protocol.ids import AdapterVersion
from shared.store.adapters.changes import OPERATOR
from shared.store.adapters.registry import Registry
from shared.store.redis.connection import Redis, chunks, decode_hash
from shared.store.redis.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class AtStart:
    """A name in the settings of workers, after the workers have registered it."""

    name: str
    given: AdapterVersion
    """Version that the name had in the settings of the worker that registered it last."""
    served: Adapter | None
    """Version to which the name refers; None if a client has unloaded the name."""
    is_by_client: bool
    """Whether a client has made the name refer to this version, or has unloaded the name."""


async def begin_start(redis: Redis, keys: Keys, names: Collection[str]) -> None:
    """Prepare the registry for a start of all workers with the adapters `names`.

    No process of the pool may run. Names that clients had unloaded are forgotten, so that the
    workers' adapters get them. Names that only the settings of an earlier start have are unloaded,
    except those that a client has set since.
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
    """Unload those of `names` whose version an earlier start has set, and return them.

    Workers have left the names out, so this version isn't the one in the settings.
    """
    registry = Registry(redis, keys)
    unloaded = set()
    for name in names:
        if await redis.hget(keys.adapter(name), "by") == b"start":  # type: ignore[misc]
            await redis.hdel(keys.adapter(name), "at_start")  # type: ignore[misc]
            await registry.unload_adapter(name, by=OPERATOR)
            unloaded.add(name)
    return unloaded


async def adapters_at_start(redis: Redis, keys: Keys, names: Iterable[str]) -> list[AtStart]:
    """Return what the names in the workers' settings refer to, for the registered ones."""
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
