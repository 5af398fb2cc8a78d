"""The load of a pool as the number of workers that its jobs need."""

from collections.abc import Sequence

from shared.protocol.adapters import BaseModel
from shared.store.views.pool_views import QueueCounts, WorkerView


def load_of(counts: QueueCounts, base: BaseModel | None, workers: Sequence[WorkerView]) -> float:
    """Return the number of workers that the unfinished jobs need: jobs divided by slots per worker.

    A job counts as one slot, although it takes a slot for each of its choices. Workers that have
    left don't change the result, since Redis remembers the slots of the last worker. Without a base
    model, the load is 1, because the pool accepts jobs only after a worker has registered one.
    """
    if base is None:
        return 1.0
    unfinished = counts.waiting + counts.running
    if slots := counts.slots_per_worker or _most_slots(workers):
        return unfinished / slots
    return 1.0 if unfinished else 0.0  # how many workers these jobs need is unknown


def _most_slots(workers: Sequence[WorkerView]) -> int:
    """Return the slots of the largest live worker, or 0 if no worker is alive.

    Workers of the previous release don't leave their slots in Redis.
    """
    alive = (worker for worker in workers if worker.lease_left_ms > 0)
    return max((worker.info.max_num_seqs for worker in alive), default=0)
