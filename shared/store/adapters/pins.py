"""Pinned adapters: a minimum number of workers keeps the current version of a pinned name."""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.protocol.adapters import AdapterState
from shared.protocol.capabilities import Needs, decode_needs
from shared.protocol.ids import AdapterVersion, WorkerId
from shared.store.adapters.refusals import conflict
from shared.store.redis.pool_store import PoolStore

LOAD_MS = 30_000
"""Milliseconds after which the exclusive right to load a version expires. `begin_load` takes the
right."""
MAX_PINS = 256
"""Maximum number of pinned names. Each worker reads all of them every second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedVersion:
    """The current version of a pinned name, and the workers that hold it."""

    version: AdapterVersion
    replicas: int
    """Minimum number of workers that hold the version."""
    num_holders: int
    is_held: bool
    """Whether the calling worker holds the version."""
    needs: Needs
    """Capabilities that a worker needs to serve the version."""


class Pins(PoolStore):
    """Pinned names of one pool."""

    async def set(self, name: str, replicas: int, *, by: str) -> bool:
        """Keep the current version of a name on at least `replicas` workers; 0 unpins the name.

        `by` is the client that asks for the change, as the audit log shows it. Returns False if the
        name isn't registered.

        Raises:
            JobFailed: too many names are pinned.
        """
        match await self._scripts.run("set_pin", name, replicas, MAX_PINS, by):
            case [b"ok", _]:
                return True
            case [b"full"]:
                raise conflict(f"{MAX_PINS} adapters are pinned already; unpin one")
        return False

    async def all(self) -> dict[str, int]:
        """Return the minimum number of workers for each pinned name."""
        raw = await self._redis.hgetall(self._keys.pins)  # type: ignore[misc]
        return {name.decode(): int(replicas) for name, replicas in raw.items()}

    async def versions(self, wid: WorkerId) -> Sequence[PinnedVersion]:
        """Return the current versions of the pinned names, with `is_held` for the worker `wid`.

        Quarantined versions are left out.
        """
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
        """Take the exclusive right to load a version. Return False if another worker has the right.

        Also returns False if enough workers hold the version by now. The right ends with
        `end_load`, or after `LOAD_MS`.
        """
        key = self._keys.pin_load(pinned.version)
        if not await self._redis.set(key, "1", nx=True, px=LOAD_MS):
            return False
        # Another worker may have loaded the version since `pinned` was read.
        if await self._redis.scard(self._keys.holders(pinned.version)) < pinned.replicas:  # type: ignore[misc]
            return True
        await self.end_load(pinned.version)
        return False

    async def end_load(self, version: AdapterVersion) -> None:
        """End the right to load a version, so that other workers may load it."""
        await self._redis.delete(self._keys.pin_load(version))
