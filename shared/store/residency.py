"""Record of which workers hold which adapter versions: typed methods, one Lua script call each."""

from collections.abc import Collection, Mapping, Sequence

from shared.errors import LeaseLost
from shared.protocol.ids import AdapterVersion, WorkerId
from shared.protocol.queue_replies import ReplicaStanding
from shared.store.connection import Redis, chunks
from shared.store.keys import Keys
from shared.store.scripts import Scripts, flat

VERSIONS_PER_CALL = 128
REPLICAS_PER_CALL = 32
"""Bounds of one script call, so that none blocks Redis for long."""


class ResidencyStore:
    """Resident adapter versions of a pool's workers.

    Remembers what this process has reported of its own workers, so that a claim names only the
    differences. Pass the same instance to the `Queue` of these workers.
    """

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._scripts = Scripts(redis, keys)
        self._reported: dict[WorkerId, set[AdapterVersion]] = {}
        """Versions that each worker of this process holds according to Redis."""
        self._mismatched: set[WorkerId] = set()
        """Workers for which Redis had another number of versions at their last heartbeat."""

    async def set_residents(
        self,
        wid: WorkerId,
        *,
        add: Sequence[AdapterVersion] = (),
        remove: Sequence[AdapterVersion] = (),
    ) -> list[AdapterVersion]:
        """Record that the worker holds the versions in `add`, and no longer those in `remove`.

        Also ends the worker's exclusive load of these versions. Returns those of `add` that other
        workers hold too.

        Raises:
            LeaseLost: the worker was given up.
        """
        replicated: list[AdapterVersion] = []
        for page in chunks(add, VERSIONS_PER_CALL):
            replicated += await self._change(wid, len(page), page)
        for page in chunks(remove, VERSIONS_PER_CALL):
            await self._change(wid, 0, page)
        return replicated

    async def _change(
        self, wid: WorkerId, num_added: int, versions: Sequence[AdapterVersion]
    ) -> list[AdapterVersion]:
        replicated = await self._scripts.run("residents", wid, num_added, *versions)
        if replicated == 0:
            raise self.lease_lost(wid)
        reported = self._reported.setdefault(wid, set())
        if num_added:
            reported.update(versions)
        else:
            reported.difference_update(versions)
        return [AdapterVersion(version.decode()) for version in replicated]

    async def shrink(
        self,
        wid: WorkerId,
        running: Mapping[AdapterVersion, int],
        *,
        due: Collection[AdapterVersion],
        steal_ms: int,
    ) -> dict[AdapterVersion, ReplicaStanding]:
        """Return whether the pool needs the worker's replicas, and withdraw surplus ones in `due`.

        A withdrawn version no longer counts as held by the worker, which may then evict it. The
        last holder's replica is never withdrawn. May be repeated.

        Args:
            wid: the worker.
            running: versions that it holds, with the number of their jobs that it runs.
            due: versions that have been surplus for long enough.
            steal_ms: a version is needed if one of its jobs waits longer than this.

        Raises:
            LeaseLost: the worker was given up.
        """
        standing: dict[AdapterVersion, ReplicaStanding] = {}
        for page in chunks(list(running), REPLICAS_PER_CALL):
            args = [(version, running[version], int(version in due)) for version in page]
            replies = await self._scripts.run("shrink", wid, steal_ms, *flat(args))
            if replies == 0:
                raise self.lease_lost(wid)
            found = (ReplicaStanding(raw.decode()) for raw in replies)
            standing |= zip(page, found, strict=True)
        gone = {version for version, each in standing.items() if each is ReplicaStanding.GONE}
        self._reported.setdefault(wid, set()).difference_update(gone)
        return standing

    async def start_load(self, wid: WorkerId, version: AdapterVersion) -> bool:
        """Make the worker the only one that loads a version; return whether it may load it.

        It may if jobs wait for the version, no worker holds it and no other one loads it. Until
        the next `set_residents` for the version, other workers claim none of its jobs.
        """
        return bool(await self._scripts.run("load", wid, version))

    async def cold_heads(self, limit: int) -> list[AdapterVersion]:
        """Return versions with waiting jobs that no worker holds, in the order of these jobs."""
        names = await self._redis.zrange(self._keys.cold, 0, limit - 1)
        return [AdapterVersion(raw.decode()) for raw in names]

    def begin(self, wid: WorkerId) -> None:
        """Start with a newly registered worker, which holds nothing according to Redis."""
        self._reported[wid] = set()

    def end(self, wid: WorkerId) -> None:
        """Forget a worker of this process that has left the pool or was given up."""
        self._reported.pop(wid, None)

    def lease_lost(self, wid: WorkerId) -> LeaseLost:
        """Forget a worker that was given up, and return the error for it."""
        self.end(wid)
        return LeaseLost(f"worker {wid} was given up: its lease ended, its jobs run elsewhere")

    def unreported(
        self, wid: WorkerId, residents: Collection[AdapterVersion]
    ) -> tuple[set[AdapterVersion], set[AdapterVersion]]:
        """Return versions that the worker holds and Redis doesn't know of, and the reverse."""
        reported, held = self._reported.get(wid, set()), set(residents)
        return held - reported, reported - held

    async def repair(self, wid: WorkerId, num_held: int) -> None:
        """Report the worker's versions again if a failover made Redis forget some of them.

        Does so at the second mismatch in a row, since a report may be under way at the first.

        Args:
            wid: the worker.
            num_held: number of versions that it holds according to Redis.
        """
        reported = self._reported.get(wid)
        if reported is None or num_held == len(reported):
            self._mismatched.discard(wid)
        elif wid not in self._mismatched:
            self._mismatched.add(wid)
        else:
            raw = await self._redis.smembers(self._keys.residents(wid))  # type: ignore[misc]
            held = {AdapterVersion(version.decode()) for version in raw}
            add, remove = sorted(reported - held), sorted(held - reported)
            await self.set_residents(wid, add=add, remove=remove)
