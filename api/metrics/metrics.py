"""Prometheus metrics of one app; those of its pool are added at each scrape."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from api.http.connection_limits import Refusal
from api.metrics.pool_metrics import PoolCollector, PoolSnapshot
from shared.protocol.results import Usage

MAX_MODELS = 200
"""Models that are told apart; the label's values stay in memory, here and in Prometheus."""
OTHER_MODELS = "(other)"

_QUEUE_BUCKETS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300)
_FIRST_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300)
_TOKEN_GAP_BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 10)
_REQUEST_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """What this process counts; each app has its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._models: set[str] = set()
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
        self._queue_seconds = self._histogram(
            "lorikeet_queue_seconds",
            "From a job's acceptance until it is in an engine: it waited, and its adapter loaded",
            _QUEUE_BUCKETS,
        )
        self._first_token_seconds = self._histogram(
            "lorikeet_time_to_first_token_seconds",
            "From a job's acceptance to its first token",
            _FIRST_TOKEN_BUCKETS,
        )
        self._token_gap_seconds = self._histogram(
            "lorikeet_inter_token_seconds",
            "Between two arrivals of tokens of one answer",
            _TOKEN_GAP_BUCKETS,
        )
        self._prompt_tokens = self._counter(
            "lorikeet_prompt_tokens", "Prompt tokens answered", ("model",)
        )
        self._completion_tokens = self._counter(
            "lorikeet_completion_tokens", "Tokens generated", ("model",)
        )
        self._diverged = self._counter(
            "lorikeet_resume_diverged",
            "Streams ended because a moved job contradicted what was shown; expected 0",
        )
        self._http_refused = self._counter(
            "lorikeet_http_refused", "Connections that were refused or cut", ("reason",)
        )
        for refusal in Refusal:
            self._http_refused.labels(refusal.value)  # shown from the start, as 0

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """Count an HTTP request."""
        self._requests.labels(endpoint, str(status)).inc()
        self._request_seconds.labels(endpoint).observe(seconds)

    def admitted(self, seconds: float) -> None:
        """Count the wait of a job for an engine."""
        self._queue_seconds.observe(seconds)

    def first_token(self, seconds: float) -> None:
        """Count the wait for a job's first token."""
        self._first_token_seconds.observe(seconds)

    def token_gap(self, seconds: float) -> None:
        """Count the time between two arrivals of tokens."""
        self._token_gap_seconds.observe(seconds)

    def tokens(self, model: str, usage: Usage) -> None:
        """Count the tokens of a finished job."""
        if len(self._models) < MAX_MODELS:
            self._models.add(model)
        label = model if model in self._models else OTHER_MODELS
        self._prompt_tokens.labels(label).inc(usage.prompt_tokens)
        self._completion_tokens.labels(label).inc(usage.completion_tokens)

    def diverged(self) -> None:
        """Count a stream that ended with `resume_diverged`."""
        self._diverged.inc()

    def http_refused(self, refusal: Refusal) -> None:
        """Count a connection that was refused or cut."""
        self._http_refused.labels(refusal.value).inc()

    def exposition(self, pool: PoolSnapshot | None) -> bytes:
        """All metrics in Prometheus' text format; without `pool`, Redis was out of reach."""
        scrape = CollectorRegistry()
        scrape.register(PoolCollector(pool))
        return generate_latest(self._registry) + generate_latest(scrape)

    def _counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(name, text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, buckets=buckets, registry=self._registry)
