"""Loads adapters that jobs in the queue need, while this worker can't claim more jobs."""

import asyncio
import time
from dataclasses import dataclass, field

import structlog

from shared.errors import RedisUnavailable
from shared.protocol.capabilities import Capabilities
from shared.protocol.ids import AdapterVersion
from shared.store.adapters.residency import ResidencyStore
from worker.adapters.loader import AdapterLoader
from worker.adapters.residency import Residency

log = structlog.get_logger()

LOOK_S = 0.25
"""Seconds between two reads of the queue."""
MAX_HEADS = 16
"""Maximum number of versions, from the front of the queue, that each read returns."""
RETRY_S = 30.0
"""Minimum seconds between two prefetches of a version.

A second prefetch is useful if the first one failed, or if the version was evicted since."""


@dataclass(slots=True, eq=False)
class Prefetcher:
    """Prefetches versions whose jobs stay in the queue, one version at a time."""

    store: ResidencyStore
    residency: Residency
    loader: AdapterLoader
    serves: Capabilities
    """Kinds of adapters and features of jobs that this worker supports."""
    _is_full: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _tried_s: dict[AdapterVersion, float] = field(default_factory=dict, init=False)

    def set_full(self, is_full: bool) -> None:
        """Set whether the worker has no room for more jobs. Only then are versions prefetched."""
        if is_full:
            self._is_full.set()
        else:
            self._is_full.clear()

    async def run(self) -> None:
        """Prefetch until cancelled."""
        while True:
            await self._is_full.wait()
            try:
                heads = await self.store.cold_heads(MAX_HEADS, self.serves)
            except RedisUnavailable as error:
                log.warning("look_ahead_failed", error=str(error))
                heads = []
            for version in heads:
                is_useful = self.residency.can_prefetch(version, time.monotonic())
                if is_useful and self._is_new(version):
                    await self.loader.prefetch(version)
            await asyncio.sleep(LOOK_S)

    def _is_new(self, version: AdapterVersion) -> bool:
        now_s = time.monotonic()
        self._tried_s = {v: at_s for v, at_s in self._tried_s.items() if now_s - at_s < RETRY_S}
        is_new = version not in self._tried_s
        self._tried_s.setdefault(version, now_s)
        return is_new
