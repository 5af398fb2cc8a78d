"""Prometheus metrics of the pool, read from Redis. Every front end exports the same values."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.metrics.vllm_metrics import vllm_metrics
from api.pool_state.load import load_of
from shared.protocol.adapters import BaseModel
from shared.protocol.ids import name_of
from shared.protocol.jobs import JobState
from shared.store.views.pool_views import QueueCounts, RedisMemory, WorkerView

MAX_ADAPTERS = 20
"""Maximum number of adapters that one metric lists by name.

A metric that counts jobs lists the adapters with the most jobs. A metric that counts workers lists
the adapters with the most workers.
"""
OTHER_ADAPTERS = "(other)"


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """State of the pool at one moment."""

    counts: QueueCounts
    workers: Sequence[WorkerView]
    memory: RedisMemory
    num_strays: int | None = None
    """Number of Redis keys without owner or lifetime that the latest audit found; None if there was
    no audit."""
    base: BaseModel | None = None
    """The base model; None before the first worker has registered."""


class PoolCollector(Collector):
    """Prometheus collector for one snapshot of the pool, which is None if Redis is unavailable."""

    def __init__(self, pool: PoolSnapshot | None) -> None:
        self._pool = pool

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of the snapshot."""
        yield _gauge("redis_up", "Whether Redis answered the last read", self._pool is not None)
        if self._pool is not None:
            yield from _redis_metrics(self._pool.memory)
            text = "Redis keys without owner or lifetime, as of the last audit by a control process"
            yield GaugeMetricFamily("lorikeet_stray_keys", text, value=self._pool.num_strays)
            yield from _queue_metrics(self._pool.counts)
            yield from _load_metrics(self._pool.counts, self._pool.base)
            yield from _worker_metrics(self._pool.workers)
            if self._pool.base is not None:
                yield from vllm_metrics(
                    self._pool.base, self._pool.counts, self._pool.workers, now_s=time.time()
                )


def _redis_metrics(memory: RedisMemory) -> Iterator[Metric]:
    yield _gauge("redis_memory_bytes", "Memory used by Redis", memory.used)
    limit = "Redis's maxmemory; 0 means no limit. Requests are refused from 80 % of it"
    yield _gauge("redis_memory_limit_bytes", limit, memory.limit)
    kinds = "Memory of the pool's keys by kind, estimated from a random sample"
    yield _labelled(GaugeMetricFamily, "redis_bytes", kinds, "kind", memory.by_kind)


def _queue_metrics(counts: QueueCounts) -> Iterator[Metric]:
    yield _gauge("jobs_waiting", "Jobs in the queue", counts.waiting)
    text = "Jobs in the queue by adapter or base model"
    waiting = _waiting_by_adapter(counts)
    yield _labelled(GaugeMetricFamily, "adapter_jobs_waiting", text, "adapter", waiting)
    ended = {state.value: total for state, total in counts.totals.items()}
    yield _labelled(CounterMetricFamily, "jobs_ended", "Ended jobs by final state", "state", ended)
    faults = {
        "client": counts.failed_client,
        "server": counts.totals.get(JobState.FAILED, 0) - counts.failed_client,
    }
    text = "Failed jobs by the side at fault: client if the error's status is below 500"
    yield _labelled(CounterMetricFamily, "jobs_failed", text, "fault", faults)
    text = "Records of jobs without an answer that were deleted early for lack of memory"
    yield CounterMetricFamily("lorikeet_job_records_dropped", text, value=counts.records_dropped)
    text = "Jobs that returned to the queue because their worker was lost or released them"
    requeued = {"worker_lost": counts.retried, "released": counts.released}
    yield _labelled(CounterMetricFamily, "jobs_requeued", text, "reason", requeued)
    text = "Workers that were declared dead because their lease expired"
    yield CounterMetricFamily("lorikeet_workers_lost", text, value=counts.workers_lost)


def _load_metrics(counts: QueueCounts, base: BaseModel | None) -> Iterator[Metric]:
    text = "Number of workers that the unfinished jobs need: their choices / slots per worker"
    yield _gauge("load", text, load_of(counts, base))
    text = "Maximum number of sequences of the last worker that has joined; 0 if unknown"
    yield _gauge("slots_per_worker", text, counts.slots_per_worker)


def _waiting_by_adapter(counts: QueueCounts) -> Mapping[str, int]:
    """Return the number of waiting jobs by adapter name. Adapters with few jobs share one entry."""
    waiting: Counter[str] = Counter()
    for version, number in counts.waiting_by_version.items():
        waiting[name_of(version)] += number
    largest = dict(waiting.most_common(MAX_ADAPTERS))
    rest = waiting.total() - sum(largest.values())
    return {**largest, OTHER_ADAPTERS: rest} if rest else largest


def _worker_metrics(workers: Sequence[WorkerView]) -> Iterator[Metric]:
    alive = sum(worker.lease_left_ms > 0 for worker in workers)
    yield _gauge("workers_alive", "Workers with a valid lease", alive)
    running = sum(worker.running for worker in workers)
    yield _gauge("jobs_running", "Jobs claimed by workers", running)
    text = "Workers on which an adapter or the base model is resident"
    yield _labelled(GaugeMetricFamily, "adapter_workers", text, "adapter", _by_adapter(workers))
    for family, table in ((GaugeMetricFamily, _GAUGES), (CounterMetricFamily, _COUNTERS)):
        for name, text, value in table:
            by_worker = {str(worker.id): value(worker) for worker in workers}
            yield _labelled(family, f"worker_{name}", text, "worker", by_worker)


def _by_adapter(workers: Sequence[WorkerView]) -> Mapping[str, int]:
    """Return the number of workers with a resident version of an adapter, by adapter name."""
    resident = ({name_of(version) for version in w.residents} for w in workers)
    numbers = Counter(name for names in resident for name in names)
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
    """Return a function that reads a worker's counter. A counter that isn't reported is 0."""
    return lambda worker: worker.info.counters.get(name, 0)


_Table = tuple[tuple[str, str, Callable[[WorkerView], float]], ...]

_GAUGES: _Table = (
    ("jobs_running", "Jobs claimed by a worker", lambda w: w.running),
    ("sequences_running", "Sequences in the running batch", lambda w: w.info.num_running),
    (
        "sequences_max",
        "Maximum number of sequences in the running batch",
        lambda w: w.info.max_num_seqs,
    ),
    ("sequences_waiting", "Sequences that wait for KV cache blocks", lambda w: w.info.num_waiting),
    ("kv_blocks", "Number of KV cache blocks", lambda w: w.info.kv_blocks),
    ("kv_blocks_free", "Free KV cache blocks", lambda w: w.info.kv_blocks_free),
    ("weight_bytes", "Memory of the base model", lambda w: w.info.weight_bytes),
    ("kv_bytes", "Memory of the KV cache", lambda w: w.info.kv_bytes),
    ("adapter_bytes", "Memory of resident adapters", lambda w: w.info.adapter_bytes),
    (
        "adapter_bytes_max",
        "Limit on the memory of resident adapters",
        lambda w: w.info.adapter_bytes_max,
    ),
    (
        "host_adapter_bytes",
        "Memory of adapter copies on the host",
        lambda w: w.info.host_adapter_bytes,
    ),
    (
        "host_adapter_bytes_max",
        "Limit on the memory of adapter copies on the host",
        lambda w: w.info.host_adapter_bytes_max,
    ),
    ("adapters_resident", "Number of resident versions", lambda w: len(w.residents)),
)
_COUNTERS: _Table = (
    ("tokens", "Tokens generated by a worker", lambda w: w.info.tokens_total),
    (
        "forced_tokens",
        "Tokens output without a step because a grammar allowed no other",
        _total("forced_tokens"),
    ),
    ("drafted_tokens", "Tokens of prompt lookup that steps verified", _total("drafted_tokens")),
    ("accepted_tokens", "Tokens of prompt lookup that were output", _total("accepted_tokens")),
    ("steps", "Engine steps", _total("steps")),
    ("preemptions", "Sequences preempted for lack of KV cache blocks", _total("preemptions")),
    ("out_of_memory", "Forward passes that ran out of memory", _total("out_of_memory")),
    ("adapter_loads", "Times that an adapter was made resident", _total("loads")),
    (
        "adapter_load_seconds",
        "Total time spent making adapters resident",
        lambda w: w.info.counters.get("load_ms", 0) / 1000,
    ),
    (
        "adapter_reads",
        "Times that an adapter's files were read and checked for that",
        _total("reads"),
    ),
    ("adapter_evictions", "Times that an adapter was evicted", _total("evictions")),
    (
        "adapter_spreads",
        "Times that a replica of another worker's adapter was made resident",
        _total("spreads"),
    ),
    ("adapter_shrinks", "Times that such a replica was evicted again", _total("shrinks")),
    (
        "lease_losses",
        "Times that a worker lost its lease and registered again",
        _total("lease_losses"),
    ),
)
