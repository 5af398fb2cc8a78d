"""What Redis tells of the pool, as Prometheus metrics; every front end shows the same."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shared.protocol.ids import AdapterVersion
from shared.store.pool_views import QueueCounts, RedisMemory, WorkerView

MAX_ADAPTERS = 20
"""Those with the most waiting jobs, or workers, are told apart; there may be thousands."""
OTHER_ADAPTERS = "(other)"


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """The pool at the moment of a scrape."""

    counts: QueueCounts
    workers: Sequence[WorkerView]
    memory: RedisMemory


class PoolCollector(Collector):
    """A snapshot as metrics; None when Redis was out of reach."""

    def __init__(self, pool: PoolSnapshot | None) -> None:
        self._pool = pool

    def collect(self) -> Iterable[Metric]:
        """The snapshot's metrics."""
        yield _gauge("redis_up", "Whether Redis answered this scrape", self._pool is not None)
        if self._pool is not None:
            yield from _redis_metrics(self._pool.memory)
            yield from _queue_metrics(self._pool.counts)
            yield from _worker_metrics(self._pool.workers)


def _redis_metrics(memory: RedisMemory) -> Iterator[Metric]:
    yield _gauge("redis_memory_bytes", "Memory that Redis uses", memory.used)
    limit = "Redis' maxmemory; 0 is none. From 80 % on, requests are refused"
    yield _gauge("redis_memory_limit_bytes", limit, memory.limit)
    kinds = "Memory of the pool's keys, estimated from a random sample"
    yield _labelled(GaugeMetricFamily, "redis_bytes", kinds, "kind", memory.by_kind)


def _queue_metrics(counts: QueueCounts) -> Iterator[Metric]:
    yield _gauge("jobs_waiting", "Jobs in the queue", counts.waiting)
    yield _labelled(
        GaugeMetricFamily,
        *("adapter_jobs_waiting", "Jobs that wait for one adapter or the base model", "adapter"),
        _waiting_by_adapter(counts.waiting_by_version),
    )
    ended = {state.value: total for state, total in counts.totals.items()}
    yield _labelled(CounterMetricFamily, "jobs_ended", "Jobs that ended", "state", ended)
    text = "Jobs that went back to the queue: their worker died, or gave them back"
    again = {"worker_lost": counts.retried, "released": counts.released}
    yield _labelled(CounterMetricFamily, "jobs_requeued", text, "reason", again)
    text = "Workers that were given up, as they had fallen silent"
    yield CounterMetricFamily("lorikeet_workers_lost", text, value=counts.workers_lost)


def _waiting_by_adapter(by_version: Mapping[AdapterVersion, int]) -> Mapping[str, int]:
    """By name, the largest on their own and the rest in one."""
    waiting: Counter[str] = Counter()
    for version, number in by_version.items():
        waiting[version.rpartition("@")[0]] += number
    largest = dict(waiting.most_common(MAX_ADAPTERS))
    rest = waiting.total() - sum(largest.values())
    return {**largest, OTHER_ADAPTERS: rest} if rest else largest


def _worker_metrics(workers: Sequence[WorkerView]) -> Iterator[Metric]:
    alive = sum(worker.lease_left_ms > 0 for worker in workers)
    yield _gauge("workers_alive", "Workers with a valid lease", alive)
    running = sum(worker.running for worker in workers)
    yield _gauge("jobs_running", "Jobs that workers hold", running)
    yield _labelled(
        GaugeMetricFamily,
        *("adapter_workers", "Workers that hold one adapter or the base model", "adapter"),
        _workers_by_adapter(workers),
    )
    for family, table in ((GaugeMetricFamily, _GAUGES), (CounterMetricFamily, _COUNTERS)):
        for name, text, value in table:
            by_worker = {str(worker.id): value(worker) for worker in workers}
            yield _labelled(family, f"worker_{name}", text, "worker", by_worker)


def _workers_by_adapter(workers: Sequence[WorkerView]) -> Mapping[str, int]:
    """By name, in whichever versions; those that most workers hold."""
    held = ({version.rpartition("@")[0] for version in w.residents} for w in workers)
    numbers = Counter(name for names in held for name in names)
    return dict(sorted(numbers.items(), key=lambda item: (-item[1], item[0]))[:MAX_ADAPTERS])


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"lorikeet_{name}", text, value=value)


def _labelled(
    family: type[GaugeMetricFamily] | type[CounterMetricFamily],
    name: str,
    text: str,
    label: str,
    values: Mapping[str, float],
) -> Metric:
    metric = family(f"lorikeet_{name}", text, labels=(label,))
    for key, value in values.items():
        metric.add_metric((key,), value)
    return metric


def _total(name: str) -> Callable[[WorkerView], float]:
    """One of the totals that workers count by name; older ones may not know it."""
    return lambda worker: worker.info.counters.get(name, 0)


_Table = tuple[tuple[str, str, Callable[[WorkerView], float]], ...]

_GAUGES: _Table = (
    ("jobs_running", "Jobs that a worker holds", lambda w: w.running),
    ("sequences_running", "Sequences computed together", lambda w: w.info.num_running),
    ("sequences_max", "Most sequences computed together", lambda w: w.info.max_num_seqs),
    ("sequences_waiting", "Sequences waiting for memory", lambda w: w.info.num_waiting),
    ("kv_blocks", "KV cache blocks", lambda w: w.info.kv_blocks),
    ("kv_blocks_free", "KV cache blocks that are free", lambda w: w.info.kv_blocks_free),
    ("weight_bytes", "Memory of the base model", lambda w: w.info.weight_bytes),
    ("kv_bytes", "Memory of the KV cache", lambda w: w.info.kv_bytes),
    ("adapter_bytes", "Memory of resident adapters", lambda w: w.info.adapter_bytes),
    ("adapter_bytes_max", "Most of it", lambda w: w.info.adapter_bytes_max),
    ("host_adapter_bytes", "Copies in the host's memory", lambda w: w.info.host_adapter_bytes),
    ("host_adapter_bytes_max", "Most of them", lambda w: w.info.host_adapter_bytes_max),
    ("adapters_resident", "Resident versions", lambda w: len(w.residents)),
)
_COUNTERS: _Table = (
    ("tokens", "Tokens that a worker generated", lambda w: w.info.tokens_total),
    ("steps", "Engine steps", _total("steps")),
    ("preemptions", "Sequences put back for lack of KV cache blocks", _total("preemptions")),
    ("adapter_loads", "Adapters made resident", _total("loads")),
    ("adapter_load_seconds", "Time that took", lambda w: w.info.counters.get("load_ms", 0) / 1000),
    ("adapter_reads", "Adapters read and checked for that", _total("reads")),
    ("adapter_evictions", "Adapters that made room", _total("evictions")),
    ("adapter_spreads", "Adapters made resident beside another worker", _total("spreads")),
    ("adapter_shrinks", "Those that were given up again", _total("shrinks")),
    ("lease_losses", "Times that a worker was given up and came back", _total("lease_losses")),
)
