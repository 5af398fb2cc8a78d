"""Removes unreferenced adapter versions from Redis, memory and disk."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field

import structlog

from shared.errors import RedisUnavailable
from shared.protocol.ids import AdapterVersion
from shared.store.adapters.adapter_views import AdapterViews
from shared.store.adapters.registry import Registry
from worker.adapters.advertiser import Advertiser
from worker.adapters.disk_store import AdapterStore
from worker.adapters.loader import AdapterLoader
from worker.adapters.residency import Jobs, Residency

log = structlog.get_logger()

SWEEP_S = 1.0
"""Maximum seconds between two sweeps of the registry for unreferenced versions."""
TIDY_S = 5.0
"""Maximum seconds between two checks of this worker's versions. Heartbeats trigger most checks."""
UNUSED_S = 10.0
"""A copy unused for this many seconds is deleted, unless the registry knows its version."""
IN_QUEUE, CURRENT, PREVIOUS, UNKNOWN = 3, 2, 1, 0
"""Values of copies on disk. Copies with low values are deleted first. For a version in the queue,
the copy may be the only source."""


@dataclass(frozen=True, slots=True, eq=False)
class Retention:
    """Sweeps the registry on behalf of the whole pool.

    It also removes from this worker the versions that are no longer in the registry, after the
    check in `AdapterLoader.evict_forgotten`. Finally, it gives up replicas that the pool doesn't
    need.
    """

    registry: Registry
    views: AdapterViews
    residency: Residency
    loader: AdapterLoader
    advertiser: Advertiser
    store: AdapterStore | None
    """Store of adapters' files on disk; None if this worker has no such store."""
    num_jobs: Callable[[], Jobs]
    """Returns the number of running jobs of each version."""
    _: KW_ONLY
    base: AdapterVersion
    """The base model. It is never removed."""
    _must_tidy: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def tidy(self) -> None:
        """Trigger a check of this worker's versions, because the registry has forgotten some."""
        self._must_tidy.set()

    async def run(self) -> None:
        """Sweep and check until cancelled, except while Redis is unavailable."""
        loop = asyncio.get_running_loop()
        tidied_s = loop.time()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_S):
                    await self._must_tidy.wait()
            with contextlib.suppress(RedisUnavailable):
                await self.advertiser.shrink(self.num_jobs())
                if forgotten := await self.registry.forget_unused():
                    log.info("adapters_forgotten", versions=forgotten)
                if self._must_tidy.is_set() or loop.time() - tidied_s > TIDY_S:
                    self._must_tidy.clear()
                    tidied_s = loop.time()
                    await self._evict_forgotten()
                    await self._discard_uploads()
                    await self._trim_store()

    async def _evict_forgotten(self) -> None:
        known = sorted(self.residency.known - {self.base})
        for version in await self.registry.forgotten(known):
            if await self.loader.evict_forgotten(version):
                log.info("adapter_evicted", version=version, reason="nothing refers to it")

    async def _discard_uploads(self) -> None:
        """Delete copies of uploaded and fetched adapters that the registry has forgotten."""
        store = self.store
        if store is None:
            return
        copies = await asyncio.to_thread(store.uploads, unused_s=UNUSED_S)
        gone = set(await self.registry.forgotten(sorted(copies.values())))
        for digest in (digest for digest, version in copies.items() if version in gone):
            await asyncio.to_thread(store.discard, digest)
            log.info("adapter_copy_removed", version=copies[digest])

    async def _trim_store(self) -> None:
        store = self.store
        if store is None or not await asyncio.to_thread(lambda: store.is_too_large):
            return
        values = await self._values()
        await asyncio.to_thread(store.trim, lambda digest: values.get(digest, UNKNOWN))

    async def _values(self) -> dict[str, int]:
        """Return how valuable each registered version's copy is, by digest."""
        values: dict[str, int] = {}
        views = await self.views.adapters()
        versions = [(view.current, CURRENT) for view in views]
        versions += [(version, PREVIOUS) for view in views for version in view.previous]
        versions += [(version, IN_QUEUE) for version in await self.views.retired()]
        for view, value in versions:
            digest = view.adapter.digest
            value = IN_QUEUE if view.waiting else value
            values[digest] = max(values.get(digest, UNKNOWN), value)
        return values
