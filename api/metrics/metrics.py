"""Prometheus metrics of one app. `api/routes/server_info.py` serves them at /metrics."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from api.http.connection_limits import Refusal
from api.metrics.pool_metrics import PoolCollector, PoolSnapshot
from shared.protocol.results import Usage

MAX_MODELS = 200
"""Maximum number of models that have their own value of the label `model`.

Each value permanently uses memory in this process and in Prometheus.
"""
OTHER_MODELS = "(other)"

_QUEUE_BUCKETS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300)
_FIRST_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300)
_TOKEN_GAP_BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 10)
_REQUEST_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Counters and histograms of one app."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._models: set[str] = set()
        self._requests = self._counter(
            "lorikeet_requests",
            "HTTP requests; status 499 means that the client closed the connection",
            ("endpoint", "status"),
        )
        self._request_seconds = self._histogram(
            "lorikeet_request_seconds",
            "Time from the start of an HTTP request to the end of its response",
            _REQUEST_BUCKETS,
            ("endpoint",),
        )
        self.queue_seconds = self._histogram(
            "lorikeet_queue_seconds",
            "Time from the acceptance of a job until an engine runs it, including adapter loading",
            _QUEUE_BUCKETS,
        )
        self.first_token_seconds = self._histogram(
            "lorikeet_time_to_first_token_seconds",
            "Time from the acceptance of a job to its first token",
            _FIRST_TOKEN_BUCKETS,
        )
        self.token_gap_seconds = self._histogram(
            "lorikeet_inter_token_seconds",
            "Time between two arrivals of tokens of the same choice",
            _TOKEN_GAP_BUCKETS,
        )
        self._prompt_tokens = self._counter(
            "lorikeet_prompt_tokens", "Prompt tokens of finished jobs", ("model",)
        )
        self._completion_tokens = self._counter(
            "lorikeet_completion_tokens", "Output tokens of finished jobs", ("model",)
        )
        self.diverged = self._counter(
            "lorikeet_resume_diverged",
            "Streams that ended because a resumed job contradicted its earlier tokens; expected 0",
        )
        self._http_refused = self._counter(
            "lorikeet_http_refused", "Connections that were refused or closed early", ("reason",)
        )
        for refusal in Refusal:
            self._http_refused.labels(refusal.value)  # exports 0 before the first refusal

    def count_request(self, endpoint: str, status: int, seconds: float) -> None:
        """Count an HTTP request and observe its duration."""
        self._requests.labels(endpoint, str(status)).inc()
        self._request_seconds.labels(endpoint).observe(seconds)

    def count_tokens(self, model: str, usage: Usage) -> None:
        """Add the tokens of a finished job to the token counters."""
        if len(self._models) < MAX_MODELS:
            self._models.add(model)
        label = model if model in self._models else OTHER_MODELS
        self._prompt_tokens.labels(label).inc(usage.prompt_tokens)
        self._completion_tokens.labels(label).inc(usage.completion_tokens)

    def count_refusal(self, refusal: Refusal) -> None:
        """Count a connection that was refused or closed early."""
        self._http_refused.labels(refusal.value).inc()

    def exposition(self, pool: PoolSnapshot | None) -> bytes:
        """Return all metrics in Prometheus's text format.

        If Redis is unavailable, `pool` is None and most metrics of the pool are missing.
        """
        scrape = CollectorRegistry()
        scrape.register(PoolCollector(pool))
        return generate_latest(self._registry) + generate_latest(scrape)

    def _counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(name, text, labels, registry=self._registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()
    ) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self._registry)
