"""The Redis stores of a pool that a worker uses."""

from shared.store.adapters.adapter_views import AdapterViews
from shared.store.adapters.fetch_progress import StagingProgress
from shared.store.adapters.inspections import Inspections
from shared.store.adapters.pins import Pins
from shared.store.adapters.registry import Registry
from shared.store.adapters.residency import ResidencyStore
from shared.store.adapters.uploads import Uploads
from shared.store.jobs.queue import Queue
from shared.store.jobs.tokenizations import Tokenizations
from shared.store.redis.connection import Redis
from shared.store.redis.durability import Durability
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews


class PoolStores:
    """Typed access to the stores of one pool."""

    def __init__(self, redis: Redis, pool: str, durability: Durability | None) -> None:
        """Open the stores.

        `durability` sets how many copies of a claim must exist in Redis before the worker uses the
        claim. If `durability` is None, the worker uses claims without waiting for copies.
        """
        self.keys = keys = Keys(pool)
        self.residency = ResidencyStore(redis, keys)
        self.queue = Queue(redis, keys, durability=durability, residency=self.residency)
        self.registry = Registry(redis, keys)
        self.inspections = Inspections(redis, keys)
        self.tokenizations = Tokenizations(redis, keys)
        self.uploads = Uploads(redis, keys)
        self.staging = StagingProgress(redis, keys)
        self.pins = Pins(redis, keys)
        self.views = PoolViews(redis, keys)
        self.adapter_views = AdapterViews(redis, keys)
