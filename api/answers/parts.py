"""Two groups of a pool's objects: one turns requests into jobs, and one sends the answers.

`api/assembly.py` creates both when the app starts.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from api.adapters.on_demand import OnDemand
from api.adapters.shadow_copies import ShadowCopies
from api.follow.cancel_queue import CancelQueue
from api.follow.follower import ReadCheckpoints
from api.http.turns.turns import Turns
from api.metrics.metrics import Metrics
from api.pools.model_cache import ModelCache
from shared.protocol.enqueue import QueueLimits
from shared.protocol.ids import ApiId
from shared.settings import ApiSettings
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue
from shared.store.views.pool_views import PoolViews

if TYPE_CHECKING:
    from shared.tracing.tracer import Tracer


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """Objects of one pool that turn requests into jobs."""

    settings: ApiSettings
    api_id: ApiId
    limits: QueueLimits
    queue: Queue
    registry: Registry
    models: ModelCache
    """Cache of the models that requests have named."""
    turns: Turns
    """Limits the number of requests that are accepted at the same time."""
    on_demand: OnDemand
    """Registers unknown adapters at their first request."""
    shadow_copies: ShadowCopies
    """Enqueues copies of jobs for shadows."""
    tracer: "Tracer | None"
    """Records requests as spans. None if tracing is off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """Objects of one pool that read and send the answers of jobs."""

    api_id: ApiId
    queue: Queue
    views: PoolViews
    read_checkpoints: ReadCheckpoints
    cancels: CancelQueue
    metrics: Metrics
