"""The load of a pool as the number of workers that its jobs need."""

import pytest
from api_support import BASE, queue_counts

from api.pool.load import load_of
from shared.protocol.ids import WorkerId
from shared.protocol.workers import WorkerInfo
from shared.store.views.pool_views import QueueCounts, WorkerView


def counts(waiting: int, running: int = 0, slots: int = 0) -> QueueCounts:
    return queue_counts(waiting=waiting, running=running, slots_per_worker=slots)


def worker(slots: int, lease_left_ms: int = 1) -> WorkerView:
    info = WorkerInfo(model="m", device="cpu", dtype="float32", version="0", max_num_seqs=slots)
    return WorkerView(
        id=WorkerId(f"w{slots}"), lease_left_ms=lease_left_ms, info=info, residents=(), running=0
    )


def test_the_load_is_the_number_of_jobs_per_slot_of_a_worker() -> None:
    assert load_of(counts(56, running=8, slots=16), BASE, [worker(32)]) == 4


def test_without_known_slots_the_largest_live_worker_counts() -> None:
    workers = [worker(8), worker(16), worker(64, lease_left_ms=-1)]
    assert load_of(counts(56, running=8), BASE, workers) == 4


@pytest.mark.parametrize(("waiting", "load"), [(0, 0), (1, 1), (64, 1)])
def test_without_slots_and_workers_any_jobs_need_one_worker(waiting: int, load: float) -> None:
    assert load_of(counts(waiting), BASE, [worker(64, lease_left_ms=0)]) == load


def test_without_a_base_model_the_pool_needs_one_worker() -> None:
    assert load_of(counts(0), None, []) == 1
