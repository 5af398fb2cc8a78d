"""What a scrape shows of answers and of a large pool."""

from collections.abc import Sequence

from prometheus_client.parser import text_string_to_metric_families

from api.follow.transcript import Delta
from api.metrics import stream_timing
from api.metrics.metrics import MAX_MODELS, OTHER_MODELS, Metrics
from api.metrics.pool_metrics import MAX_ADAPTERS, OTHER_ADAPTERS, PoolSnapshot
from api.metrics.stream_timing import Timing
from shared.protocol.events import Admitted
from shared.protocol.ids import AdapterVersion, JobId, WorkerId
from shared.protocol.results import Usage
from shared.protocol.workers import WorkerInfo
from shared.store.pool_views import QueueCounts, RedisMemory, WorkerView

ADMITTED = Admitted(job=JobId("j"), try_=1, prompt_tokens=3)


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


def samples(metrics: Metrics, pool: PoolSnapshot | None = None) -> dict[tuple[str, ...], float]:
    """Each sample by its name and the values of its labels."""
    families = text_string_to_metric_families(metrics.exposition(pool).decode())
    return {(s.name, *s.labels.values()): s.value for f in families for s in f.samples}


def test_an_answer_tells_its_waits_for_an_engine_for_a_token_and_between_tokens(
    monkeypatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(stream_timing, "time", clock)
    metrics = Metrics()
    answer = Timing(metrics)
    for passed_s, step in (
        (1.0, ADMITTED),
        (0.5, Delta(0, "a", None)),
        (0.25, Delta(1, "b", None)),  # another choice: no gap
        (2.0, ADMITTED),  # moved to another worker
        (0.75, Delta(0, "c", None)),
    ):
        clock.now_s += passed_s
        answer.note([step])
    found = samples(metrics)
    assert found["lorikeet_queue_seconds_sum",] == 1.0
    assert found["lorikeet_queue_seconds_count",] == 1
    assert found["lorikeet_time_to_first_token_seconds_sum",] == 1.5
    assert found["lorikeet_time_to_first_token_seconds_count",] == 1
    assert found["lorikeet_inter_token_seconds_sum",] == 3.0
    assert found["lorikeet_inter_token_seconds_count",] == 1


def test_models_beyond_a_limit_share_one_label() -> None:
    metrics, usage = Metrics(), Usage(prompt_tokens=2, completion_tokens=1)
    for number in (*range(MAX_MODELS + 3), 0):
        metrics.tokens(f"m{number}", usage)
    found = samples(metrics)
    assert found["lorikeet_prompt_tokens_total", "m0"] == 4
    assert found["lorikeet_prompt_tokens_total", OTHER_MODELS] == 6
    assert sum(name == "lorikeet_completion_tokens_total" for name, *_ in found) == MAX_MODELS + 1


def test_the_adapters_with_most_waiting_jobs_are_told_apart() -> None:
    waiting = {AdapterVersion(f"a{n}@{'0' * 12}"): n for n in range(1, MAX_ADAPTERS + 3)}
    waiting[AdapterVersion(f"a{MAX_ADAPTERS + 2}@{'1' * 12}")] = 5  # the same adapter, older
    found = samples(Metrics(), pool(waiting))
    shown = {n[1]: v for n, v in found.items() if n[0] == "lorikeet_adapter_jobs_waiting"}
    assert len(shown) == MAX_ADAPTERS + 1
    assert shown[f"a{MAX_ADAPTERS + 2}"] == MAX_ADAPTERS + 2 + 5
    assert shown[OTHER_ADAPTERS] == 1 + 2


def test_the_adapters_that_most_workers_hold_are_told_whatever_their_versions() -> None:
    hot = [AdapterVersion(f"hot@{'0' * 12}"), AdapterVersion(f"hot@{'1' * 12}")]
    others = [AdapterVersion(f"a{n}@{'0' * 12}") for n in range(MAX_ADAPTERS)]
    workers = [holder("w1", hot[0], *others), holder("w2", *hot), holder("w3")]
    found = samples(Metrics(), pool({}, workers))
    shown = {n[1]: v for n, v in found.items() if n[0] == "lorikeet_adapter_workers"}
    assert len(shown) == MAX_ADAPTERS
    assert shown["hot"] == 2
    assert shown["a0"] == 1


def test_the_memory_of_each_kind_of_key_is_told() -> None:
    counts = pool({}).counts
    memory = RedisMemory(used=900, limit=0, by_kind={"job": 500, "dead": 0})
    found = samples(Metrics(), PoolSnapshot(counts, (), memory))
    assert found["lorikeet_redis_bytes", "job"] == 500
    assert found["lorikeet_redis_bytes", "dead"] == 0


def holder(name: str, *residents: AdapterVersion) -> WorkerView:
    info = WorkerInfo(model="m", device="cpu", dtype="float32", version="0", max_num_seqs=8)
    wid = WorkerId(name)
    return WorkerView(id=wid, lease_left_ms=1, info=info, residents=residents, running=0)


def pool(waiting: dict[AdapterVersion, int], workers: Sequence[WorkerView] = ()) -> PoolSnapshot:
    counts = QueueCounts(
        waiting=sum(waiting.values()),
        totals={},
        waiting_by_version=waiting,
        retried=0,
        released=0,
        workers_lost=0,
    )
    return PoolSnapshot(counts, workers, RedisMemory(1, 2))
