"""Metrics of one app and of its pool, also in vLLM's names."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from api_support import BASE, metric_samples, queue_counts, worker_info

from api.follow.transcript import Delta
from api.metrics import stream_timing
from api.metrics.metrics import MAX_MODELS, OTHER_MODELS, Metrics
from api.metrics.pool_metrics import MAX_ADAPTERS, OTHER_ADAPTERS, PoolSnapshot
from api.metrics.stream_timing import StreamTiming
from api.metrics.vllm_metrics import MAX_LISTED
from shared.protocol.events import Admitted
from shared.protocol.ids import AdapterVersion, JobId, WorkerId
from shared.protocol.results import Usage
from shared.protocol.workers import WorkerInfo
from shared.store.views.pool_views import RedisMemory, WorkerView


def test_models_beyond_a_limit_share_one_label() -> None:
    metrics, usage = Metrics(), Usage(prompt_tokens=2, completion_tokens=1)
    for number in (*range(MAX_MODELS + 3), 0):
        metrics.count_tokens(f"m{number}", usage)
    found = metric_samples(metrics)
    assert found["lorikeet_prompt_tokens_total", "m0"] == 4
    assert found["lorikeet_prompt_tokens_total", OTHER_MODELS] == 6
    assert sum(name == "lorikeet_completion_tokens_total" for name, *_ in found) == MAX_MODELS + 1


ADMITTED = Admitted(job=JobId("j"), try_=1, prompt_tokens=3)


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


def test_queue_time_first_token_and_token_gaps_are_observed(
    monkeypatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(stream_timing, "time", clock)
    metrics = Metrics()
    answer = StreamTiming(metrics)
    for passed_s, step in (
        (1.0, ADMITTED),
        (0.5, Delta(0, "a", None)),
        (0.25, Delta(1, "b", None)),  # another choice, so there is no gap
        (2.0, ADMITTED),  # the job moved to another worker
        (0.75, Delta(0, "c", None)),
    ):
        clock.now_s += passed_s
        answer.record([step])
    found = metric_samples(metrics)
    assert found["lorikeet_queue_seconds_sum",] == 1.0
    assert found["lorikeet_queue_seconds_count",] == 1
    assert found["lorikeet_time_to_first_token_seconds_sum",] == 1.5
    assert found["lorikeet_time_to_first_token_seconds_count",] == 1
    assert found["lorikeet_inter_token_seconds_sum",] == 3.0
    assert found["lorikeet_inter_token_seconds_count",] == 1


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


@pytest.mark.parametrize("number", [None, 0, 3])
def test_strays_are_counted_and_have_no_value_without_an_audit(number: int | None) -> None:
    found = metric_samples(Metrics(), replace(pool({}), num_strays=number))
    assert found.get(("lorikeet_stray_keys",)) == number


def holder(name: str, *residents: AdapterVersion) -> WorkerView:
    info = WorkerInfo(
        model="m", device="cpu", dtype="float32", version="0", max_num_seqs=8, kv_tokens=100_000
    )
    wid = WorkerId(name)
    return WorkerView(id=wid, lease_left_ms=1, info=info, residents=residents, running=0)


def pool(waiting: dict[AdapterVersion, int], workers: Sequence[WorkerView] = ()) -> PoolSnapshot:
    return PoolSnapshot(queue_counts(waiting), workers, RedisMemory(1, 2))


INFO = "vllm:lora_requests_info"


def version_of(name: str, digit: str = "0") -> AdapterVersion:
    return AdapterVersion(f"{name}@{digit * 12}")


def busy(name: str, *residents: AdapterVersion, lease_left_ms: int = 1) -> WorkerView:
    return WorkerView(
        id=WorkerId(name),
        lease_left_ms=lease_left_ms,
        info=worker_info(),
        residents=(BASE.version, *residents),
        running=3,
    )


def vllm_pool(waiting: dict[AdapterVersion, int], *workers: WorkerView) -> PoolSnapshot:
    return PoolSnapshot(queue_counts(waiting), workers, RedisMemory(1, 2), base=BASE)


def test_the_values_are_totals_over_live_workers() -> None:
    sql, old, mail = version_of("sql"), version_of("sql", "1"), version_of("mail")
    waiting = {BASE.version: 4, sql: 2, old: 1}
    dead = busy("w3", version_of("dead"), lease_left_ms=-1)
    found = metric_samples(
        Metrics(), vllm_pool(waiting, busy("w1", sql, old), busy("w2", mail), dead)
    )
    assert found["vllm:num_requests_waiting", BASE.name] == 7
    assert found["vllm:num_requests_running", BASE.name] == 6
    for name in ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"):
        assert abs(found[name, BASE.name] - 0.1) < 1e-9
    assert found[INFO, "128", BASE.name, "mail,sql", "sql"] > 1e9


def test_adapters_with_the_most_jobs_are_listed() -> None:
    waiting = {version_of(f"a{n:04}"): n for n in range(1, 3000)}
    resident = busy("w1", *waiting, *(version_of(f"idle{n}") for n in range(100)))
    found = metric_samples(Metrics(), vllm_pool(waiting, resident))
    ((_, _, _, running, queued),) = [name for name in found if name[0] == INFO]
    busiest = [f"a{n:04}" for n in range(3000 - MAX_LISTED, 3000)]
    assert running.split(",") == queued.split(",") == busiest


def test_an_unknown_value_is_left_out() -> None:
    assert not [name for name in metric_samples(Metrics(), None) if name[0].startswith("vllm:")]
    unregistered = replace(vllm_pool({}), base=None)
    names = [name[0] for name in metric_samples(Metrics(), unregistered)]
    assert not [name for name in names if name.startswith("vllm:")]
    without_workers = metric_samples(Metrics(), vllm_pool({}))
    assert ("vllm:kv_cache_usage_perc", BASE.name) not in without_workers
    assert without_workers["vllm:num_requests_running", BASE.name] == 0
    assert (INFO, "0", BASE.name, "", "") in without_workers
