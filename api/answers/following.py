"""The objects with which a front end reads and sends answers."""

from dataclasses import dataclass

from api.follow.cancel_queue import CancelQueue
from api.follow.follower import ReadCheckpoints
from api.metrics.metrics import Metrics
from shared.protocol.ids import ApiId
from shared.store.jobs.queue import Queue
from shared.store.views.pool_views import PoolViews


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """Objects of one pool with which the answer of a job is read and sent."""

    api_id: ApiId
    queue: Queue
    views: PoolViews
    read_checkpoints: ReadCheckpoints
    cancels: CancelQueue
    metrics: Metrics
