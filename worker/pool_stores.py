"""The Redis stores of a pool that a worker uses."""

from dataclasses import dataclass

from shared.store.adapters.adapter_views import AdapterViews
from shared.store.adapters.inspections import Inspections
from shared.store.adapters.pins import Pins
from shared.store.adapters.progress import StagingProgress
from shared.store.adapters.registry import Registry
from shared.store.adapters.residency import ResidencyStore
from shared.store.adapters.uploads import Uploads
from shared.store.jobs.queue import Queue
from shared.store.jobs.tokenizations import Tokenizations
from shared.store.redis.connection import Redis
from shared.store.redis.durability import Durability
from shared.store.redis.keys import Keys
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
    """Return the stores of a pool. `durability` has the same meaning as in `assemble`."""
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
