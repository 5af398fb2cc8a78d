"""Lets go of adapter versions that nobody refers to any more: in Redis, in memory and on disk.

And of copies in memory that other workers can do without.
"""

import asyncio
import contextlib

import structlog

from shared.errors import RedisUnavailable
from shared.protocol.ids import AdapterVersion
from shared.store.adapter_views import AdapterViews
from shared.store.registry import Registry
from worker.adapters.disk_store import AdapterStore
from worker.adapters.residency import Adapters
from worker.jobs.running import RunningJobs

log = structlog.get_logger()

SWEEP_S = 1.0
TIDY_S = 5.0
"""Between two looks at what is resident, in case mail was lost."""
IN_QUEUE, CURRENT, PREVIOUS, UNKNOWN = 3, 2, 1, 0
"""What a copy on disk is worth: with waiting jobs it may be all that is left of the version."""


class AdapterKeeper:
    """One worker's part in it; any of them forgets a version for the whole pool."""

    def __init__(
        self,
        registry: Registry,
        views: AdapterViews,
        adapters: Adapters,
        store: AdapterStore | None,
        jobs: RunningJobs,
        *,
        base: AdapterVersion,
    ) -> None:
        self._registry = registry
        self._views = views
        self._adapters = adapters
        self._store = store
        self._jobs = jobs
        self._base = base
        self._has_mail = asyncio.Event()

    def tidy(self) -> None:
        """Look now: versions were forgotten."""
        self._has_mail.set()

    async def run(self) -> None:
        """Do it until cancelled; waits for Redis while that is away."""
        loop = asyncio.get_running_loop()
        tidied_s = loop.time()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_S):
                    await self._has_mail.wait()
            with contextlib.suppress(RedisUnavailable):
                await self._adapters.shrink(self._jobs.num_by_version)
                if forgotten := await self._registry.sweep():
                    log.info("adapters_forgotten", versions=forgotten)
                if self._has_mail.is_set() or loop.time() - tidied_s > TIDY_S:
                    self._has_mail.clear()
                    tidied_s = loop.time()
                    await self._drop_forgotten()
                    await self._trim_store()

    async def _drop_forgotten(self) -> None:
        known = [version for version in self._adapters.known if version != self._base]
        for version in await self._registry.forgotten(known):
            await self._adapters.evict(version)
            log.info("adapter_evicted", version=version, reason="nothing refers to it")

    async def _trim_store(self) -> None:
        store = self._store
        if store is None or not await asyncio.to_thread(lambda: store.is_too_large):
            return
        worth = await self._worth()
        await asyncio.to_thread(store.trim, lambda digest: worth.get(digest, UNKNOWN))

    async def _worth(self) -> dict[str, int]:
        """By digest, of all versions that the registry knows."""
        worth: dict[str, int] = {}
        views = await self._views.adapters()
        versions = [(view.current, CURRENT) for view in views]
        versions += [(version, PREVIOUS) for view in views for version in view.previous]
        versions += [(version, IN_QUEUE) for version in await self._views.retired()]
        for view, level in versions:
            digest = view.adapter.digest
            worth[digest] = max(worth.get(digest, UNKNOWN), IN_QUEUE if view.waiting else level)
        return worth
