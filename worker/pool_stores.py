"""The Redis stores of a pool that a worker uses."""

from dataclasses import dataclass

from shared.store.calls.tokenizations import Tokenizations
from shared.store.connection import Redis
from shared.store.durability import Durability
from shared.store.inspections import Inspections
from shared.store.keys import Keys
from shared.store.queue import Queue
from shared.store.registry import Registry
from shared.store.residency import ResidencyStore
from shared.store.sources.progress import StagingProgress
from shared.store.uploads import Uploads
from shared.store.versions.pins import Pins
from shared.store.views.adapter_views import AdapterViews
from shared.store.views.pool_views import PoolViews


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStores:
    """Typed access to the stores of one pool."""

    redis: Redis
    keys: Keys
    queue: Queue
    residency: ResidencyStore
    registry: Registry
    inspections: Inspections
    tokenizations: Tokenizations
    uploads: Uploads
    staging: StagingProgress
    pins: Pins
    views: PoolViews
    adapter_views: AdapterViews


def open_stores(redis: Redis, pool: str, durability: Durability | None) -> PoolStores:
    """Return the stores of a pool.

    `durability` sets how many copies of each claim must exist in Redis before the worker uses the
    claim. If `durability` is None, claims don't wait for copies.
    """
    keys = Keys(pool)
    residency = ResidencyStore(redis, keys)
    return PoolStores(
        redis=redis,
        keys=keys,
        queue=Queue(redis, keys, durability=durability, residency=residency),
        residency=residency,
        registry=Registry(redis, keys),
        inspections=Inspections(redis, keys),
        tokenizations=Tokenizations(redis, keys),
        uploads=Uploads(redis, keys),
        staging=StagingProgress(redis, keys),
        pins=Pins(redis, keys),
        views=PoolViews(redis, keys),
        adapter_views=AdapterViews(redis, keys),
    )
