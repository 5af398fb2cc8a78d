"""Computes the load of a pool: the number of workers that its jobs need."""

from shared.protocol.adapters import BaseModel
from shared.store.views.pool_views import QueueCounts


def load_of(counts: QueueCounts, base: BaseModel | None) -> float:
    """Return the number of workers that the unfinished jobs need.

    This is the number of slots that the jobs need, divided by the number of slots of a worker.
    Workers that have left don't change the result, since Redis remembers the slots of the last
    worker. Without a base model, the load is 1, because the pool accepts jobs only after a worker
    has registered one.
    """
    if base is None:
        return 1.0
    needed = slots_needed(counts)
    if counts.slots_per_worker:
        return needed / counts.slots_per_worker
    return 1.0 if needed else 0.0  # the number of workers that these jobs need is unknown


def slots_needed(counts: QueueCounts) -> int:
    """Return the number of slots that the unfinished jobs need: one for each of their choices."""
    return counts.waiting + counts.running + counts.more_sequences
