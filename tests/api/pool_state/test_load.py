"""The load of a pool as the number of workers that its jobs need."""

import pytest

from api.pool_state.rates import load_of
from shared.protocol.adapters import BaseModel
from shared.protocol.ids import AdapterVersion
from shared.store.views.pool_views import QueueCounts

BASE = BaseModel(
    name="base", version=AdapterVersion("base@0"), max_model_len=100, source="/base", created_s=1
)


def counts(waiting: int, running: int = 0, slots: int = 0) -> QueueCounts:
    return QueueCounts(
        waiting=waiting,
        running=running,
        slots_per_worker=slots,
        totals={},
        waiting_by_version={},
        retried=0,
        released=0,
        workers_lost=0,
    )


def test_the_load_is_the_number_of_jobs_per_slot_of_a_worker() -> None:
    assert load_of(counts(56, running=8, slots=16), BASE) == 4


@pytest.mark.parametrize(("waiting", "load"), [(0, 0), (1, 1), (64, 1)])
def test_without_known_slots_any_jobs_need_one_worker(waiting: int, load: float) -> None:
    assert load_of(counts(waiting), BASE) == load


def test_without_a_base_model_the_pool_needs_one_worker() -> None:
    assert load_of(counts(0), None) == 1
