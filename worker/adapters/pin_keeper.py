"""Keeps pinned adapters in this worker's memory if the pool needs them here."""

import asyncio
import time
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

import structlog

from shared.errors import AdapterRejected, RedisUnavailable
from shared.protocol.capabilities import Capabilities
from shared.protocol.ids import AdapterVersion
from shared.store.adapters.pins import PinnedVersion, Pins
from worker.adapters.advertiser import Advertiser
from worker.adapters.loader import AdapterLoader
from worker.adapters.residency import Residency
from worker.lease import Lease

LOOK_S = 1.0
"""Seconds between two reads of the pins."""
RETRY_S = 30.0
"""Seconds after which a failed load of a version is tried again."""

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class PinKeeper:
    """Loads pinned versions that too few workers hold, one at a time."""

    pins: Pins
    residency: Residency
    loader: AdapterLoader
    advertiser: Advertiser
    lease: Lease
    serves: Capabilities
    """Capabilities of the worker."""
    _failed_s: dict[AdapterVersion, float] = field(default_factory=dict, init=False)
    """Monotonic time of the latest failed load, by version. Entries expire after `RETRY_S`."""

    @property
    def failed(self) -> Set[AdapterVersion]:
        """Versions whose load failed recently."""
        return self._failed_s.keys()

    async def run(self) -> None:
        """Keep pinned adapters until cancelled."""
        while True:
            await self.lease.is_held.wait()
            try:
                await self._keep(await self.pins.versions(self.lease.wid))
            except RedisUnavailable as error:
                log.warning("pins_not_read", error=str(error))
            await asyncio.sleep(LOOK_S)

    async def _keep(self, pinned: Sequence[PinnedVersion]) -> None:
        self.residency.pinned = frozenset(each.version for each in pinned if must_keep(each))
        now_s = time.monotonic()
        self._failed_s = {v: at_s for v, at_s in self._failed_s.items() if now_s - at_s < RETRY_S}
        wanted = [each for each in pinned if must_load(each) and self._may_load(each)]
        for each in wanted[:1]:
            if await self.pins.begin_load(each):
                await self._load(each.version)
                # The next worker that may load the version relies on the reported holders.
                await self.advertiser.report()
                await self.pins.end_load(each.version)

    def _may_load(self, pinned: PinnedVersion) -> bool:
        version = pinned.version
        is_new = version not in self._failed_s and not self.residency.is_resident(version)
        return is_new and self.serves.serves(pinned.needs)

    async def _load(self, version: AdapterVersion) -> None:
        try:
            async with self.loader.resident(version):
                log.info("pinned_adapter_loaded", version=version)
        except AdapterRejected as error:
            self._failed_s[version] = time.monotonic()
            await self.advertiser.report_failed_load(version, error)
            log.warning("pinned_adapter_not_loaded", version=version, error=str(error))
        except Exception:  # per adapter: the worker goes on
            self._failed_s[version] = time.monotonic()
            log.exception("pinned_adapter_not_loaded", version=version)


def must_load(pinned: PinnedVersion) -> bool:
    """Return whether this worker should load a pinned version, unless another one is loading it."""
    return not pinned.is_held and pinned.num_holders < pinned.replicas


def must_keep(pinned: PinnedVersion) -> bool:
    """Return whether this worker should keep a pinned version."""
    return pinned.is_held and pinned.num_holders <= pinned.replicas
