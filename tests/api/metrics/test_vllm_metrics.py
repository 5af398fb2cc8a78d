"""vLLM's metrics of a pool."""

from dataclasses import replace

from api_support import BASE, metric_samples, queue_counts, worker_info

from api.metrics.metrics import Metrics
from api.metrics.pool_metrics import PoolSnapshot
from api.metrics.vllm_metrics import MAX_LISTED
from shared.protocol.ids import AdapterVersion, WorkerId
from shared.store.views.pool_views import RedisMemory, WorkerView

INFO = "vllm:lora_requests_info"


def version_of(name: str, digit: str = "0") -> AdapterVersion:
    return AdapterVersion(f"{name}@{digit * 12}")


def worker(name: str, *residents: AdapterVersion, lease_left_ms: int = 1) -> WorkerView:
    return WorkerView(
        id=WorkerId(name),
        lease_left_ms=lease_left_ms,
        info=worker_info(),
        residents=(BASE.version, *residents),
        running=3,
    )


def pool(waiting: dict[AdapterVersion, int], *workers: WorkerView) -> PoolSnapshot:
    return PoolSnapshot(queue_counts(waiting), workers, RedisMemory(1, 2), base=BASE)


def test_the_values_are_totals_over_live_workers() -> None:
    sql, old, mail = version_of("sql"), version_of("sql", "1"), version_of("mail")
    waiting = {BASE.version: 4, sql: 2, old: 1}
    dead = worker("w3", version_of("dead"), lease_left_ms=-1)
    found = metric_samples(
        Metrics(), pool(waiting, worker("w1", sql, old), worker("w2", mail), dead)
    )
    assert found["vllm:num_requests_waiting", BASE.name] == 7
    assert found["vllm:num_requests_running", BASE.name] == 6
    for name in ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"):
        assert abs(found[name, BASE.name] - 0.1) < 1e-9
    assert found[INFO, "128", BASE.name, "mail,sql", "sql"] > 1e9


def test_adapters_with_the_most_jobs_are_listed() -> None:
    waiting = {version_of(f"a{n:04}"): n for n in range(1, 3000)}
    resident = worker("w1", *waiting, *(version_of(f"idle{n}") for n in range(100)))
    found = metric_samples(Metrics(), pool(waiting, resident))
    ((_, _, _, running, queued),) = [name for name in found if name[0] == INFO]
    busiest = [f"a{n:04}" for n in range(3000 - MAX_LISTED, 3000)]
    assert running.split(",") == queued.split(",") == busiest


def test_an_unknown_value_is_left_out() -> None:
    assert not [name for name in metric_samples(Metrics(), None) if name[0].startswith("vllm:")]
    unregistered = replace(pool({}), base=None)
    names = [name[0] for name in metric_samples(Metrics(), unregistered)]
    assert not [name for name in names if name.startswith("vllm:")]
    without_workers = metric_samples(Metrics(), pool({}))
    assert ("vllm:kv_cache_usage_perc", BASE.name) not in without_workers
    assert without_workers["vllm:num_requests_running", BASE.name] == 0
    assert (INFO, "0", BASE.name, "", "") in without_workers
