"""Record of the adapter versions that each worker holds, and of the rights to load versions."""

from collections.abc import Collection, Mapping, Sequence

from shared.errors import LeaseLost
from shared.protocol.capabilities import EVERYTHING, Capabilities, Feature, decode_needs
from shared.protocol.ids import AdapterVersion, WorkerId
from shared.protocol.queue_replies import ReplicaStanding
from shared.store.redis.connection import Redis, chunks
from shared.store.redis.keys import Keys
from shared.store.redis.pool_store import PoolStore
from shared.store.redis.scripts import flat

VERSIONS_PER_CALL = 128
"""Maximum number of versions in one call of `residents.lua`."""
REPLICAS_PER_CALL = 32
"""Maximum number of replicas in one call of `shrink.lua`."""
MAX_REASON = 300
"""Maximum number of characters of the reason in an incident."""
COLD_PAGE = 256
MAX_COLD_PAGES = 4
"""Maximum number of pages that `cold_heads` reads for a worker that doesn't serve every job."""


class ResidencyStore(PoolStore):
    """Resident adapter versions of a pool's workers.

    The store remembers which versions this process has reported for its own workers, so that a
    claim sends only the differences. The `Queue` of these workers must use the same instance.
    """

    def __init__(self, redis: Redis, keys: Keys) -> None:
        super().__init__(redis, keys)
        self._reported: dict[WorkerId, set[AdapterVersion]] = {}
        """Versions that each worker of this process has reported to Redis."""
        self._mismatched: set[WorkerId] = set()
        """Workers for which Redis had a different number of versions at their latest heartbeat."""

    async def set_residents(
        self,
        wid: WorkerId,
        *,
        add: Sequence[AdapterVersion] = (),
        remove: Sequence[AdapterVersion] = (),
    ) -> list[AdapterVersion]:
        """Record that the worker holds the versions in `add`, and no longer holds `remove`.

        The worker's exclusive rights to load any of these versions end. Returns the versions in
        `add` that other workers hold too.

        Raises:
            LeaseLost: the worker was declared dead.
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
        """Return whether the pool needs each replica, and withdraw surplus replicas in `due`.

        The worker is no longer a holder of a withdrawn version, and may evict it. The last
        replica of a version is never withdrawn. The call may be repeated. `running` maps each
        version that the worker holds to the number of the version's jobs that the worker runs. A
        replica is needed if a job of its version has waited for longer than `steal_ms`.

        Raises:
            LeaseLost: the worker was declared dead.
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

    async def record_failed_load(self, wid: WorkerId, version: AdapterVersion, reason: str) -> None:
        """Record an incident: the worker couldn't load a version. `reason` is cut if it is long."""
        await self._scripts.run("record_failed_load", wid, version, reason[:MAX_REASON])

    async def start_load(self, wid: WorkerId, version: AdapterVersion) -> bool:
        """Request the exclusive right to load a version, and return whether the worker has it.

        The worker gets the right if jobs of the version wait, no worker holds the version, and no
        other worker loads it. Other workers claim no jobs of the version meanwhile. The right ends
        when the worker calls `set_residents` for the version, or when no heartbeat renews it.
        """
        return bool(await self._scripts.run("start_load", wid, version))

    async def cold_heads(
        self, limit: int, serves: Capabilities = EVERYTHING
    ) -> list[AdapterVersion]:
        """Return up to `limit` versions that have waiting jobs but no holder.

        The versions are sorted by the queue scores of their first jobs, lowest first. Each has a
        job that needs no more than the capabilities `serves`. At most `MAX_COLD_PAGES` pages of
        versions are examined, so later ones may be missed.
        """
        if serves.is_everything:
            return _versions(await self._redis.zrange(self._keys.cold, 0, limit - 1))
        found: list[AdapterVersion] = []
        for page in range(MAX_COLD_PAGES):
            first = page * COLD_PAGE
            names = await self._redis.zrange(self._keys.cold, first, first + COLD_PAGE - 1)
            found += await self._served(_versions(names), serves) if names else ()
            if len(found) >= limit or len(names) < COLD_PAGE:
                break
        return found[:limit]

    async def _served(
        self, versions: Sequence[AdapterVersion], serves: Capabilities
    ) -> list[AdapterVersion]:
        """Return the versions with a waiting job that the worker serves.

        The hash `featured` also has running jobs, so a version may wrongly seem to have only jobs
        with features. Such a version is left to workers that serve all features.
        """
        has_features = serves.features == frozenset(Feature)
        pipe = self._redis.pipeline(transaction=False)
        pipe.hmget(self._keys.needs, list(versions))
        for version in versions:
            pipe.zcard(self._keys.queue(version))
            pipe.hlen(self._keys.featured(version))
        needs, *counts = await pipe.execute()
        return [
            version
            for version, raw, waiting, featured in zip(
                versions, needs, counts[::2], counts[1::2], strict=True
            )
            if (has_features or waiting > featured)
            and (raw is None or serves.serves(decode_needs(raw.decode())))
        ]

    def begin(self, wid: WorkerId) -> None:
        """Start tracking a newly registered worker. It has no versions in Redis yet."""
        self._reported[wid] = set()

    def end(self, wid: WorkerId) -> None:
        """Stop tracking a worker, because it has left the pool or was declared dead."""
        self._reported.pop(wid, None)

    def lease_lost(self, wid: WorkerId) -> LeaseLost:
        """Stop tracking a worker that was declared dead, and return the error to raise."""
        self.end(wid)
        return LeaseLost(f"worker {wid} was given up: its lease ended, its jobs run elsewhere")

    def unreported(
        self, wid: WorkerId, residents: Collection[AdapterVersion]
    ) -> tuple[set[AdapterVersion], set[AdapterVersion]]:
        """Return the versions held but not reported, and the versions reported but not held."""
        reported, held = self._reported.get(wid, set()), set(residents)
        return held - reported, reported - held

    async def repair(self, wid: WorkerId, num_held: int) -> None:
        """Correct Redis' set of the worker's versions if its size, `num_held`, is wrong.

        The repair waits for the second mismatch in a row, because a report that is under way may
        cause the first one.
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


def _versions(names: Sequence[bytes]) -> list[AdapterVersion]:
    return [AdapterVersion(raw.decode()) for raw in names]
