"""Metrics of a large pool."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from api_support import metric_samples, queue_counts

from api.metrics.metrics import Metrics
from api.metrics.pool_metrics import MAX_ADAPTERS, OTHER_ADAPTERS, PoolSnapshot
from shared.protocol.ids import AdapterVersion, WorkerId
from shared.protocol.workers import WorkerInfo
from shared.store.views.pool_views import RedisMemory, WorkerView


def test_adapters_with_the_most_waiting_jobs_have_their_own_label() -> None:
    waiting = {AdapterVersion(f"a{n}@{'0' * 12}"): n for n in range(1, MAX_ADAPTERS + 3)}
    older = AdapterVersion(f"a{MAX_ADAPTERS + 2}@{'1' * 12}")
    waiting[older] = 5
    found = metric_samples(Metrics(), pool(waiting))
    exported = {n[1]: v for n, v in found.items() if n[0] == "lorikeet_adapter_jobs_waiting"}
    assert len(exported) == MAX_ADAPTERS + 1
    assert exported[f"a{MAX_ADAPTERS + 2}"] == MAX_ADAPTERS + 2 + 5
    assert exported[OTHER_ADAPTERS] == 1 + 2


def test_adapters_on_the_most_workers_have_their_own_label_in_any_version() -> None:
    hot = [AdapterVersion(f"hot@{'0' * 12}"), AdapterVersion(f"hot@{'1' * 12}")]
    others = [AdapterVersion(f"a{n}@{'0' * 12}") for n in range(MAX_ADAPTERS)]
    workers = [holder("w1", hot[0], *others), holder("w2", *hot), holder("w3")]
    found = metric_samples(Metrics(), pool({}, workers))
    exported = {n[1]: v for n, v in found.items() if n[0] == "lorikeet_adapter_workers"}
    assert len(exported) == MAX_ADAPTERS
    assert exported["hot"] == 2
    assert exported["a0"] == 1


def test_memory_is_exported_by_kind_of_key() -> None:
    counts = pool({}).counts
    memory = RedisMemory(used=900, limit=0, by_kind={"job": 500, "dead": 0})
    found = metric_samples(Metrics(), PoolSnapshot(counts, (), memory))
    assert found["lorikeet_redis_bytes", "job"] == 500
    assert found["lorikeet_redis_bytes", "dead"] == 0


@pytest.mark.parametrize("number", [0, 3])
def test_strays_are_counted(number: int) -> None:
    found = metric_samples(Metrics(), replace(pool({}), num_strays=number))
    assert found["lorikeet_stray_keys",] == number


def test_strays_have_no_value_without_an_audit() -> None:
    assert ("lorikeet_stray_keys",) not in metric_samples(Metrics(), pool({}))


def holder(name: str, *residents: AdapterVersion) -> WorkerView:
    info = WorkerInfo(
        model="m", device="cpu", dtype="float32", version="0", max_num_seqs=8, kv_tokens=100_000
    )
    wid = WorkerId(name)
    return WorkerView(id=wid, lease_left_ms=1, info=info, residents=residents, running=0)


def pool(waiting: dict[AdapterVersion, int], workers: Sequence[WorkerView] = ()) -> PoolSnapshot:
    return PoolSnapshot(queue_counts(waiting), workers, RedisMemory(1, 2))
