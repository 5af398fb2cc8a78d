"""Pinned adapters: names whose current version a minimum number of workers holds."""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.errors import JobFailed
from shared.protocol.adapters import AdapterState
from shared.protocol.capabilities import Needs, decode_needs
from shared.protocol.ids import AdapterVersion, WorkerId
from shared.store.adapters.refusals import conflict
from shared.store.redis.pool_store import PoolStore

LOAD_MS = 30_000
MAX_PINS = 256
"""Maximum number of pinned names. Workers read all of them every second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedVersion:
    """The current version of a pinned name, and the workers that hold it."""

    version: AdapterVersion
    replicas: int
    """Minimum number of workers that hold the version."""
    num_holders: int
    is_held: bool
    """Whether the worker that asks is one of them."""
    needs: Needs
    """What a worker needs to serve the version."""


class Pins(PoolStore):
    """Pinned names of one pool."""

    async def set(self, name: str, replicas: int, *, by: str) -> bool:
        """Keep the current version of a name on at least `replicas` workers; 0 ends this.

        `by` is who asks for it, for the audit log. Returns False if the name isn't registered.

        Raises:
            JobFailed: too many names are pinned.
        """
        match await self._scripts.run("set_pin", name, replicas, MAX_PINS, by):
            case [b"ok", _]:
                return True
            case [b"full"]:
                raise JobFailed(conflict(f"{MAX_PINS} adapters are pinned already; unpin one"))
        return False

    async def all(self) -> dict[str, int]:
        """Return the minimum number of workers of each pinned name."""
        raw = await self._redis.hgetall(self._keys.pins)  # type: ignore[misc]
        return {name.decode(): int(replicas) for name, replicas in raw.items()}

    async def versions(self, wid: WorkerId) -> Sequence[PinnedVersion]:
        """Return the current versions of the pinned names that aren't quarantined, for a worker."""
        pins = await self.all()
        if not pins:
            return ()
        pipe = self._redis.pipeline(transaction=False)
        for name in pins:
            pipe.hget(self._keys.adapter(name), "version")
        current = [AdapterVersion((raw or b"").decode()) for raw in await pipe.execute()]
        for version in current:
            pipe.scard(self._keys.holders(version))
            pipe.sismember(self._keys.holders(version), wid)
            pipe.hget(self._keys.version(version), "state")
            pipe.hget(self._keys.needs, version)
        flat = await pipe.execute()
        rows = zip(pins.values(), current, *(flat[i::4] for i in range(4)), strict=True)
        return [
            PinnedVersion(
                version=version,
                replicas=replicas,
                num_holders=holders,
                is_held=bool(is_held),
                needs=decode_needs(needs.decode()),
            )
            for replicas, version, holders, is_held, state, needs in rows
            if state == AdapterState.READY.encode()
        ]

    async def begin_load(self, pinned: PinnedVersion) -> bool:
        """Return whether the worker alone may load a version, until `end_load` or for 30 s."""
        key = self._keys.pin_load(pinned.version)
        if not await self._redis.set(key, "1", nx=True, px=LOAD_MS):
            return False
        # Another worker may have loaded it since `pinned` was read.
        if await self._redis.scard(self._keys.holders(pinned.version)) < pinned.replicas:  # type: ignore[misc]
            return True
        await self.end_load(pinned.version)
        return False

    async def end_load(self, version: AdapterVersion) -> None:
        """Let other workers load a pinned version, if they still should."""
        await self._redis.delete(self._keys.pin_load(version))
