"""Reports to the pool which adapter versions this worker holds."""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence

import structlog

from shared.errors import LeaseLost, RedisUnavailable
from shared.protocol.ids import AdapterVersion
from shared.store.adapters.residency import ResidencyStore
from shared.store.redis.retry import retry_until_available
from shared.store.views.pool_views import PoolViews
from worker.adapters.residency import Change, Residency
from worker.lease import Lease

log = structlog.get_logger()


class Advertiser:
    """Reports each change of the held versions, so that the pool can route jobs to this worker."""

    def __init__(
        self, store: ResidencyStore, views: PoolViews, lease: Lease, residency: Residency
    ) -> None:
        self._store = store
        self._views = views
        self._lease = lease
        self._residency = residency
        self._has_changed = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        residency.subscribe(Change.HOLDINGS, self._has_changed.set)

    async def run(self) -> None:
        """Report changes until cancelled. After the worker registers, report all held versions."""
        while True:
            await self._has_changed.wait()
            await self._lease.is_held.wait()
            self._has_changed.clear()
            await self.report()

    async def report(self) -> None:
        """Report the changes that the pool doesn't know about yet."""
        async with self._one_at_a_time:
            added, removed = self._store.unreported(self._lease.wid, self._residency.held)
            if added or removed:
                shared = await self._change(sorted(added), sorted(removed))
                self._residency.held_elsewhere(shared)

    async def start_load(self, version: AdapterVersion) -> bool:
        """Reserve the right to load a version. Return False if another worker holds or loads it."""
        return await retry_until_available(lambda: self._store.start_load(self._lease.wid, version))

    async def end_load(self, version: AdapterVersion) -> None:
        """Report that this worker no longer loads a version, so that other workers may load it."""
        await self._change([], [version])

    async def report_failed_load(self, version: AdapterVersion, error: Exception) -> None:
        """Report an incident to the operators: this worker couldn't load a version."""
        with contextlib.suppress(RedisUnavailable):
            await self._store.record_failed_load(self._lease.wid, version, str(error))

    async def is_held_elsewhere(self, version: AdapterVersion) -> bool:
        """Return whether another worker holds a version."""
        workers = await retry_until_available(self._views.workers)
        return any(version in w.residents for w in workers if w.id != self._lease.wid)

    async def shrink(self, running: Mapping[AdapterVersion, int]) -> None:
        """Give up replicas that the pool doesn't need. `running` counts jobs by version.

        `replica_policy.py` decides which replicas are due to be given up. `shrink.lua`
        withdraws those of them that are surplus.
        """
        replicas, wid = self._residency.replicas, self._lease.wid
        if not replicas:
            return
        async with self._one_at_a_time:
            now_ms, steal_ms = time.monotonic() * 1000, self._residency.stats.steal_ms
            jobs = {version: running.get(version, 0) for version in replicas}
            due = {version for version, r in replicas.items() if r.is_due(now_ms, steal_ms)}
            due -= self._residency.pinned
            try:
                standing = await self._store.shrink(wid, jobs, due=due, steal_ms=steal_ms)
            except LeaseLost:
                self._lease.lose(wid)
                return
            if wid != self._lease.wid:  # the new registration reports all versions
                return
            given_up = self._residency.replicas_standing(standing, now_ms)
        if given_up:
            log.info("adapter_copies_given_up", versions=sorted(given_up))

    async def _change(
        self, add: Sequence[AdapterVersion], remove: Sequence[AdapterVersion]
    ) -> list[AdapterVersion]:
        """Report added and removed versions. Return the added ones that other workers hold too."""
        wid = self._lease.wid
        try:
            return await retry_until_available(
                lambda: self._store.set_residents(wid, add=add, remove=remove)
            )
        except LeaseLost:
            self._lease.lose(wid)
            return []
