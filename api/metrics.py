"""Prometheus metrics of one app, and of its pool at the moment of a scrape."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shared.results import Usage
from shared.views import QueueCounts, WorkerView

_FIRST_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_REQUEST_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """What this process counts; each app has its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "lorikeet_requests",
            "HTTP requests answered; status 499 is a client that left",
            ("endpoint", "status"),
            registry=self._registry,
        )
        self._request_seconds = Histogram(
            "lorikeet_request_seconds",
            "From an HTTP request to the end of its response",
            ("endpoint",),
            buckets=_REQUEST_BUCKETS,
            registry=self._registry,
        )
        self._first_token_seconds = Histogram(
            "lorikeet_time_to_first_token_seconds",
            "From a job's acceptance to its first token",
            buckets=_FIRST_TOKEN_BUCKETS,
            registry=self._registry,
        )
        self._prompt_tokens = Counter(
            "lorikeet_prompt_tokens", "Prompt tokens answered", ("model",), registry=self._registry
        )
        self._completion_tokens = Counter(
            "lorikeet_completion_tokens", "Tokens generated", ("model",), registry=self._registry
        )
        self._diverged = Counter(
            "lorikeet_resume_diverged",
            "Streams ended because a moved job contradicted what was shown; expected 0",
            registry=self._registry,
        )

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """Count an HTTP request."""
        self._requests.labels(endpoint, str(status)).inc()
        self._request_seconds.labels(endpoint).observe(seconds)

    def first_token(self, seconds: float) -> None:
        """Count the wait for a job's first token."""
        self._first_token_seconds.observe(seconds)

    def tokens(self, model: str, usage: Usage) -> None:
        """Count the tokens of a finished job."""
        self._prompt_tokens.labels(model).inc(usage.prompt_tokens)
        self._completion_tokens.labels(model).inc(usage.completion_tokens)

    def diverged(self) -> None:
        """Count a stream that ended with `resume_diverged`."""
        self._diverged.inc()

    def exposition(self, pool: "PoolSnapshot | None") -> bytes:
        """All metrics in Prometheus' text format; without `pool`, Redis was out of reach."""
        scrape = CollectorRegistry()
        scrape.register(_PoolCollector(pool))
        return generate_latest(self._registry) + generate_latest(scrape)


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """What Redis tells of the pool."""

    counts: QueueCounts
    workers: Sequence[WorkerView]


class _PoolCollector(Collector):
    """A snapshot of the pool as metrics."""

    def __init__(self, pool: PoolSnapshot | None) -> None:
        self._pool = pool

    def collect(self) -> Iterable[Metric]:
        """The snapshot's metrics."""
        up = "Whether Redis answered this scrape"
        yield GaugeMetricFamily("lorikeet_redis_up", up, value=float(self._pool is not None))
        if self._pool is not None:
            yield from _queue_metrics(self._pool.counts)
            yield from _worker_metrics(self._pool.workers)


def _queue_metrics(counts: QueueCounts) -> Iterator[Metric]:
    yield GaugeMetricFamily("lorikeet_jobs_waiting", "Jobs in the queue", value=counts.waiting)
    by_version = GaugeMetricFamily(
        "lorikeet_version_jobs_waiting", "Jobs in the queue of one version", labels=("version",)
    )
    for version, waiting in counts.waiting_by_version.items():
        by_version.add_metric((version,), waiting)
    yield by_version
    ended = CounterMetricFamily("lorikeet_jobs_ended", "Jobs that ended", labels=("state",))
    for state, total in counts.totals.items():
        ended.add_metric((state,), total)
    yield ended


def _worker_metrics(workers: Sequence[WorkerView]) -> Iterator[Metric]:
    alive = sum(worker.lease_left_ms > 0 for worker in workers)
    yield GaugeMetricFamily("lorikeet_workers_alive", "Workers with a valid lease", value=alive)
    running = sum(worker.running for worker in workers)
    yield GaugeMetricFamily("lorikeet_jobs_running", "Jobs that workers hold", value=running)
    for name, text, value in _WORKER_GAUGES:
        gauge = GaugeMetricFamily(f"lorikeet_worker_{name}", text, labels=("worker",))
        for worker in workers:
            gauge.add_metric((worker.id,), value(worker))
        yield gauge
    tokens = CounterMetricFamily(
        "lorikeet_worker_tokens", "Tokens that a worker generated", labels=("worker",)
    )
    for worker in workers:
        tokens.add_metric((worker.id,), worker.info.tokens_total)
    yield tokens


_WORKER_GAUGES: tuple[tuple[str, str, Callable[[WorkerView], float]], ...] = (
    ("jobs_running", "Jobs that a worker holds", lambda w: w.running),
    ("sequences_running", "Sequences computed together", lambda w: w.info.num_running),
    ("sequences_waiting", "Sequences waiting for memory", lambda w: w.info.num_waiting),
    ("kv_blocks", "KV cache blocks", lambda w: w.info.kv_blocks),
    ("kv_blocks_free", "KV cache blocks that are free", lambda w: w.info.kv_blocks_free),
    ("adapter_bytes", "Memory of resident adapters", lambda w: w.info.adapter_bytes),
    ("adapters_resident", "Resident versions", lambda w: len(w.residents)),
)
